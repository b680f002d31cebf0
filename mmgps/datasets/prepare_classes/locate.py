"""Find the files of a set at hand, or download them."""

from __future__ import annotations

from pathlib import Path

from mmgps.datasets.prepare.errors import LayoutError, SourceUnavailableError, listing
from mmgps.datasets.prepare_classes.sets import ClassSet, Part
from mmgps.utils.download import ChecksumError, DownloadError, download
from mmgps.utils.progress import ProgressLine


def unpacked_at(wanted: ClassSet, at: Path) -> Path | None:
    """The folder within ``at`` that holds the set unpacked: everything that it is known by; None if there is none."""
    folders = [at, *(path for path in sorted(at.iterdir()) if path.is_dir())] if at.is_dir() else []
    return next((folder for folder in folders if all((folder / name).exists() for name in needed(wanted))), None)


def needed(wanted: ClassSet) -> frozenset[str]:
    """What a folder has to hold to be the set: all but what is written at the end."""
    return wanted.holds - frozenset(wanted.written)


def at_hand(wanted: ClassSet, at: Path) -> list[Path]:
    """The files of the set in the folder ``at``, or ``at`` itself for a set of one file.

    Raises:
        SourceUnavailableError: If there is nothing at ``at``.
        LayoutError: If files are missing; names them, and what is there.
    """
    if at.is_file() and len(wanted.parts) == 1:
        return [at]
    if not at.exists():
        raise SourceUnavailableError(f'{at} does not exist: expected {_files(wanted)}')
    folder = at if at.is_dir() else at.parent
    missing = [part.name for part in wanted.parts if not (folder / part.name).is_file()]
    if missing:
        there = listing(path.name for path in folder.iterdir()) or 'nothing'
        raise LayoutError(
            f'{folder} lacks {listing(missing)} of {wanted.title}: expected {_files(wanted)}, or a folder with '
            f'{listing(needed(wanted))}; found {there}. It comes from {wanted.where}'
        )
    return [folder / part.name for part in wanted.parts]


def fetch_parts(wanted: ClassSet, folder: Path, command: str) -> list[Path]:
    """Download the files of the set into ``folder``, or find them there.

    Args:
        wanted: The set.
        folder: Where the files are kept.
        command: What the user ran, for the error.

    Raises:
        SourceUnavailableError: If one has no public address or could not be downloaded; says where the set comes from.
    """
    return [_fetched(wanted, part, folder, command) for part in wanted.parts]


def _fetched(wanted: ClassSet, part: Part, folder: Path, command: str) -> Path:
    target = folder / part.name
    try:
        if part.url is None:
            if target.is_file():
                return target
            raise DownloadError(f'{part.name} has no stable public address')
        return download(part.url, target, part.checksum, progress=ProgressLine(f'downloading {part.name}', 'MB', 1e6))
    except (DownloadError, ChecksumError) as error:
        raise SourceUnavailableError(
            f'{wanted.title} is missing and was not downloaded: {error}. It comes from {wanted.where}. Put '
            f'{_files(wanted)} into a folder and add it to the command ({command}): --source FOLDER'
        ) from error


def _files(wanted: ClassSet) -> str:
    return ', '.join(part.name for part in wanted.parts)
