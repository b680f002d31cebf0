"""The published weights of SAM: found, or fetched and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from mmgps.utils.download import Checksum, ChecksumError, DownloadError, download
from mmgps.utils.progress import ProgressLine

from .sizes import FILES

PUBLISHED = {file.name: file for file in FILES.values()}


class WeightsUnavailableError(RuntimeError):
    """The weights are not at hand and could not be fetched; the message says where they come from and belong."""


@dataclass(frozen=True)
class WeightsFile:
    """Where weights are kept, where they come from, and what they hash to.

    Args:
        target: The file.
        url: Its address; None where it has to be there.
        checksum: None where any content will do.
    """

    target: Path
    url: str | None
    checksum: Checksum | None


def locate(checkpoint: str | Path, sha256: str | None = None) -> WeightsFile:
    """What is known of ``checkpoint``, a path or an address.

    A file that bears the name of one that the authors of SAM published comes from them and must be theirs. The files
    of other addresses are kept with those of ``torch.hub``.
    """
    given = str(checkpoint)
    is_address = re.match('https?://', given) is not None
    target = Path(torch.hub.get_dir(), 'checkpoints', given.rpartition('/')[2]) if is_address else Path(given)
    published = PUBLISHED.get(target.name)
    digest = sha256 or (published.sha256 if published else None)
    url = given if is_address else published.url if published else None
    return WeightsFile(target, url, Checksum('sha256', digest) if digest else None)


def find_weights(checkpoint: str | Path, sha256: str | None = None) -> Path:
    """The file of ``checkpoint``, fetched if it is not there, and checked in any case.

    Progress goes to standard error. What an earlier attempt got is kept and gone on from.

    Args:
        checkpoint: A path or an address, see :func:`locate`.
        sha256: What the file must hash to, for one that the authors of SAM did not publish.

    Raises:
        WeightsUnavailableError: If it is not there and could not be fetched, or is damaged.
    """
    file = locate(checkpoint, sha256)
    try:
        if file.target.is_file():
            if file.checksum:
                file.checksum.verify(file.target)
            return file.target
        return _fetch(file)
    except DownloadError as error:
        raise WeightsUnavailableError(
            f'the weights {file.target.name} are missing and were not downloaded: {error}. They come from {file.url}; '
            f'fetch them on a machine with network and put them at {file.target}'
        ) from error
    except ChecksumError as error:
        raise WeightsUnavailableError(
            f'{error}. The weights come from {file.url or "you"}; remove {file.target}, if it is there, and try again'
        ) from error


def _fetch(file: WeightsFile) -> Path:
    if file.url is None:
        raise WeightsUnavailableError(
            f'{file.target} does not exist, and none of the published files of SAM is called so: they are '
            f'{", ".join(PUBLISHED)}; put yours there, or name one of them, or an address, as checkpoint in init_cfg'
        )
    progress = ProgressLine(f'downloading {file.target.name}', 'MB', 1e6)
    return download(file.url, file.target, file.checksum, progress=progress)
