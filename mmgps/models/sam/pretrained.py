"""Start a segmentor from a published file of SAM, as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import Tensor, nn

from mmgps.delta.base import injected_names
from mmgps.engine.safe_loading import load_plain
from mmgps.registry import WEIGHT_INITIALIZERS
from mmgps.utils.names import nearest

from .weights import find_weights

PARTS = {
    'image_encoder.': 'backbone.',
    'mask_decoder.': 'decode_head.mask_decoder.',
    'prompt_encoder.': 'decode_head.prompt_encoder.',
}
"""First parts of the names in a published file, and in a segmentor."""


class CheckpointKeysError(ValueError):
    """A file holds other tensors than the segmentor has."""


@WEIGHT_INITIALIZERS.register_module()
class SAMPretrained:
    """Load a published file of SAM into a segmentor, whole: for the ``init_cfg`` of the segmentor itself.

    The file is fetched where it is not there, see :func:`find_weights`. It loads as plain tensors, without code.

    Args:
        checkpoint: A path or an address.
        sha256: What the file must hash to, where it is none that the authors of SAM published.
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

    What a method put beside them keeps its numbers.

    Args:
        segmentor: With a :class:`SAMImageEncoder` as ``backbone`` and a :class:`SAMMaskHead` as ``decode_head``.
        state: Names of the published file to tensors.
        origin: Where they come from, for the error.

    Raises:
        CheckpointKeysError: If a tensor is missing, is not known, or has another shape; lists them, and loads nothing.
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
