"""Published weights of SAM: find or download the file, check it, and load it into a segmentor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import Tensor, nn

from mmgps.delta.base import injected_names
from mmgps.engine import InputMissingError
from mmgps.engine.safe_loading import load_plain
from mmgps.registry import INPUTS, WEIGHT_INITIALIZERS
from mmgps.utils.download import Checksum, ChecksumError, DownloadError, download
from mmgps.utils.progress import ProgressLine
from mmgps.utils.text import nearest

HOST = 'https://dl.fbaipublicfiles.com/segment_anything/'


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights by the authors of SAM, under Apache-2.0.

    Args:
        name: File name; its last part is the beginning of the file's MD5.
        sha256: SHA-256 of the file. The authors publish none; several independent public downloaders agree on it.
    """

    name: str
    sha256: str


FILES = {
    'vit_b': PublishedFile('sam_vit_b_01ec64.pth', 'ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912'),
    'vit_l': PublishedFile('sam_vit_l_0b3195.pth', '3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622'),
    'vit_h': PublishedFile('sam_vit_h_4b8939.pth', 'a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e'),
}
PUBLISHED = {file.name: file for file in FILES.values()}
INITIALIZER = 'mmgps.SAMPretrained'
PARTS = {
    'image_encoder.': 'backbone.',
    'mask_decoder.': 'decode_head.mask_decoder.',
    'prompt_encoder.': 'decode_head.prompt_encoder.',
}
"""Prefixes of names in a published file, and the prefixes they have in a segmentor."""


class WeightsUnavailableError(RuntimeError):
    """The weights are missing and could not be downloaded; names their origin and the expected path."""


@dataclass(frozen=True)
class WeightsFile:
    """Location, origin and checksum of a weights file.

    Args:
        target: Path of the file.
        url: Address of the download; None if the file must exist.
        checksum: Expected checksum; None to accept any content.
    """

    target: Path
    url: str | None
    checksum: Checksum | None


def locate(checkpoint: str | Path, sha256: str | None = None) -> WeightsFile:
    """Determine location, origin and checksum of ``checkpoint``, a path or an address.

    A file with a published name is downloaded from the authors of SAM and must match their file. Files from addresses
    are kept in the folder of ``torch.hub``.
    """
    given = str(checkpoint)
    is_address = re.match('https?://', given) is not None
    target = Path(torch.hub.get_dir(), 'checkpoints', given.rpartition('/')[2]) if is_address else Path(given)
    published = PUBLISHED.get(target.name)
    digest = sha256 or (published.sha256 if published else None)
    url = given if is_address else HOST + target.name if published else None
    return WeightsFile(target, url, Checksum('sha256', digest) if digest else None)


def find_weights(checkpoint: str | Path, sha256: str | None = None) -> Path:
    """Return the file of ``checkpoint``, after downloading it if it is missing, and verify it in any case.

    Progress goes to standard error. An earlier partial download is continued.

    Args:
        checkpoint: A path or an address, see :func:`locate`.
        sha256: Expected SHA-256, for a file that the authors of SAM did not publish.

    Raises:
        WeightsUnavailableError: If it is missing and could not be downloaded, or is damaged.
    """
    file = locate(checkpoint, sha256)
    try:
        if file.target.is_file():
            if file.checksum:
                file.checksum.verify(file.target)
            return file.target
        if file.url is not None:
            progress = ProgressLine(f'downloading {file.target.name}', 'MB', 1e6)
            return download(file.url, file.target, file.checksum, progress=progress)
    except DownloadError as error:
        raise WeightsUnavailableError(
            f'the weights {file.target.name} are missing and were not downloaded: {error}. They come from {file.url}; '
            f'fetch them on a machine with network and put them at {file.target}'
        ) from error
    except ChecksumError as error:
        raise WeightsUnavailableError(
            f'{error}. The weights come from {file.url or "you"}; remove {file.target} if it exists, and try again'
        ) from error
    raise WeightsUnavailableError(
        f'{file.target} does not exist, and no published file of SAM has this name: they are {", ".join(PUBLISHED)}; '
        'put yours there, or name one of them, or an address, as checkpoint in init_cfg'
    )


@INPUTS.register_module()
class SAMWeights:
    """Config input: the published file that the ``init_cfg`` of the model names. Other models need nothing."""

    def provide(self, cfg: Config) -> None:
        """Download and verify the file."""
        start = cfg.model.get('init_cfg') or {}
        if start.get('type') != INITIALIZER:
            return
        try:
            find_weights(start['checkpoint'], start.get('sha256'))
        except WeightsUnavailableError as error:
            raise InputMissingError(str(error)[0].upper() + str(error)[1:]) from error


class CheckpointKeysError(ValueError):
    """Tensors of a file do not match the segmentor."""


@WEIGHT_INITIALIZERS.register_module()
class SAMPretrained:
    """Load a published file of SAM into a whole segmentor; belongs in the ``init_cfg`` of the segmentor itself.

    A missing file is downloaded, see :func:`find_weights`. The file loads as plain tensors, without code.

    Args:
        checkpoint: A path or an address.
        sha256: Expected SHA-256, for a file that the authors of SAM did not publish.
    """

    def __init__(self, checkpoint: str, sha256: str | None = None) -> None:
        self.checkpoint, self.sha256 = checkpoint, sha256

    def __call__(self, module: nn.Module) -> None:
        path = find_weights(self.checkpoint, self.sha256)
        load_published(module, load_plain(path), str(path))
        print_log(f'weights of SAM loaded from {path}', logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'SAMPretrained: {path}')


def load_published(segmentor: nn.Module, state: Mapping[str, Tensor], origin: str | Path) -> None:
    """Load the tensors of a published file into the encoder and the head of ``segmentor``.

    Parameters that a tuning method injected keep their values.

    Args:
        segmentor: Segmentor with a :class:`SAMImageEncoder` as ``backbone`` and a :class:`SAMMaskHead` as
            ``decode_head``.
        state: Tensors by the names of the published file.
        origin: Origin of the tensors, for the error message.

    Raises:
        CheckpointKeysError: If a tensor is missing, unknown or of another shape; lists them and loads nothing.
    """
    injected, ours = injected_names(segmentor), tuple(PARTS.values())
    own = {
        name: value for name, value in segmentor.state_dict().items() if name.startswith(ours) and name not in injected
    }
    wanted = {_published_name(name): value for name, value in own.items()}
    faults = _faults(wanted, state)
    if faults:
        raise CheckpointKeysError(
            f'{origin} does not fit {type(segmentor).__name__}: {"; ".join(faults)}. Expected the {len(wanted)} '
            'tensors of a published file of SAM; set arch of the backbone to its size'
        )
    segmentor.load_state_dict({name: state[_published_name(name)] for name in own}, strict=False)


def _published_name(name: str) -> str:
    before = {ours: theirs for theirs, ours in PARTS.items()}
    part = next(part for part in before if name.startswith(part))
    return before[part] + name.removeprefix(part)


def _faults(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in wanted if name not in state]
    surplus = [name for name in state if name not in wanted]
    shapes = [
        f'{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}'
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    near = {name: nearest(name, missing, 1, alike=0.6) for name in surplus}
    surplus.sort(key=lambda name: not near[name])  # stable: first those that look like a wrong name
    surplus = [f'{name} (nearest: {near[name]})' if near[name] else name for name in surplus]
    kinds = {'missing': missing, 'surplus': surplus, 'of another shape': shapes}
    return [f'{len(names)} {kind}: {", ".join(names)}' for kind, names in kinds.items() if names]
