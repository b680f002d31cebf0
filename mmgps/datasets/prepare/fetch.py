"""Download a set, or say in one paragraph how to get it."""

from __future__ import annotations

from pathlib import Path

from mmgps.datasets.prepare.errors import SourceUnavailableError
from mmgps.datasets.prepare.sources import PolypSource
from mmgps.utils.download import ChecksumError, DownloadError, Progress, download


def fetch(source: PolypSource, folder: str | Path, progress: Progress | None = None) -> Path:
    """Download the zip of ``source`` into ``folder``, or find it there.

    Returns:
        Path of the zip.

    Raises:
        SourceUnavailableError: If it has no public address or could not be downloaded; the message says where the set
            comes from and where to put it.
    """
    if source.url is None:
        raise SourceUnavailableError(_how_to_get(source, Path(folder), 'it has no stable public address of a zip'))
    target = Path(folder) / source.url.rpartition('/')[2]
    try:
        return download(source.url, target, source.checksum, progress=progress)
    except (DownloadError, ChecksumError) as error:
        raise SourceUnavailableError(_how_to_get(source, Path(folder), str(error))) from error


def _how_to_get(source: PolypSource, folder: Path, reason: str) -> str:
    name = source.url.rpartition('/')[2] if source.url else f'{source.name}.zip'
    return (
        f'{source.title} is missing and was not downloaded: {reason}. It comes from {source.where}. Get it from there, '
        f'put it at, for example, {folder / name}, and add to the command '
        f'(python tools/prepare_polyp.py {source.name}): --source {folder / name}'
    )
