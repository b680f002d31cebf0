"""From published files to a prepared set."""

from __future__ import annotations

from pathlib import Path

from mmgps.datasets.prepare.target import building, check_replaceable
from mmgps.datasets.prepare_classes.archives import copy, unpack
from mmgps.datasets.prepare_classes.count import count
from mmgps.datasets.prepare_classes.locate import at_hand, fetch_parts, unpacked_at
from mmgps.datasets.prepare_classes.sets import ClassSet
from mmgps.utils.progress import ProgressLine


def prepare_set(
    wanted: ClassSet,
    out: str | Path,
    command: str,
    *,
    at: str | Path | None = None,
    download_dir: str | Path | None = None,
    allow_partial: bool = False,
    force: bool = False,
) -> str:
    """Make ``out`` from the files of a set, with progress on standard error.

    ``out`` appears only when all of it is written, and its splits are read and counted by the data sets that train on
    it. After an error everything is as it was before.

    Args:
        wanted: The set.
        out: Folder to make.
        command: What the user ran, for errors.
        at: Folder with the published files, or one that holds the set unpacked; downloaded by default.
        download_dir: Where downloaded files are kept; beside ``out`` by default.
        allow_partial: Accept numbers of images other than the published ones.
        force: Replace a set that was prepared before.

    Returns:
        What was made, in words.

    Raises:
        PrepareError: One of the classes in ``mmgps.datasets.prepare.errors``.
    """
    out = Path(out)
    check_replaceable(out, force)  # before a download that would be in vain
    folder = None if at is None else unpacked_at(wanted, Path(at))
    if folder is None:
        files = (
            fetch_parts(wanted, Path(download_dir or out.parent), command) if at is None else at_hand(wanted, Path(at))
        )
    with building(out, force) as made:
        progress = ProgressLine(f'unpacking {wanted.title}', 'files')
        if folder is not None:
            unpack(folder, made, holds=wanted.holds, progress=progress)
        else:
            _write(wanted, files, made, progress)
        if wanted.finish:
            wanted.finish(made)
        counts = count(wanted, made, allow_partial)
    listed = ', '.join(f'{number} {split}' for split, number in counts.items())
    return f'{wanted.title} in {out}: {listed}\ncite: {wanted.cite}'


def _write(wanted: ClassSet, files: list[Path], made: Path, progress: ProgressLine) -> None:
    for part, file in zip(wanted.parts, files, strict=True):
        if part.plain:
            copy(file, made / part.into)
        else:
            holds = None if part.into else wanted.holds
            unpack(file, made / part.into, part.root, holds, progress)
