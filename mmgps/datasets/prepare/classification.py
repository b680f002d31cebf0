"""Prepare a classification set: find or download its files, unpack them, and count the result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, init_default_scope

from mmgps.utils.download import ChecksumError, DownloadError, download
from mmgps.utils.progress import ProgressLine
from mmgps.utils.requirements import require

from .archives import unpack
from .class_sets import ClassSet, SourceFile, Split
from .errors import CountError, LayoutError, SourceUnavailableError, listing
from .target import building, check_replaceable


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
    """Create ``out`` from the files of a set, with progress on standard error.

    ``out`` appears only when everything is written and its splits were read and counted by the data sets that train on
    them. An error leaves everything as it was.

    Args:
        wanted: The set.
        out: Folder to create.
        command: Command that the user ran, for error messages.
        at: Folder with the published files or with the unpacked set; downloaded by default.
        download_dir: Folder that keeps downloaded files; beside ``out`` by default.
        allow_partial: Accept other numbers of images than published.
        force: Replace a set that was prepared before.

    Returns:
        Description of the prepared set.

    Raises:
        PrepareError: One of the classes in ``mmgps.datasets.prepare.errors``.
    """
    out = Path(out)
    check_replaceable(out, force)  # fails before a useless download
    folder = None if at is None else unpacked_at(wanted, Path(at))
    if at is None:
        files = [_fetch(wanted, part, Path(download_dir or out.parent), command) for part in wanted.parts]
    elif folder is None:
        files = at_hand(wanted, Path(at))
    with building(out, force) as made:
        progress = ProgressLine(f'unpacking {wanted.title}', 'files')
        if folder is not None:
            unpack(folder, made, holds=wanted.holds, progress=progress)
        else:
            _unpack_parts(wanted, files, made, progress)
        if wanted.finish:
            wanted.finish(made)
        counts = count(wanted, made, allow_partial)
    listed = ', '.join(f'{number} {split}' for split, number in counts.items())
    return f'{wanted.title} in {out}: {listed}\ncite: {wanted.cite}'


def _unpack_parts(wanted: ClassSet, files: list[Path], made: Path, progress: ProgressLine) -> None:
    for part, file in zip(wanted.parts, files, strict=True):
        if part.plain:
            (made / part.into).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, made / part.into / file.name)
        else:
            unpack(file, made / part.into, part.root, None if part.into else wanted.holds, progress)


def unpacked_at(wanted: ClassSet, at: Path) -> Path | None:
    """Find the folder at or within ``at`` that holds the unpacked set; None if there is none."""
    folders = [at, *(path for path in sorted(at.iterdir()) if path.is_dir())] if at.is_dir() else []
    return next((folder for folder in folders if all((folder / name).exists() for name in _published(wanted))), None)


def at_hand(wanted: ClassSet, at: Path) -> list[Path]:
    """Find the files of the set in the folder ``at``; ``at`` may itself be the only file of a set.

    Raises:
        SourceUnavailableError: If ``at`` does not exist.
        LayoutError: If files are missing; names them and the existing ones.
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
            f'{listing(_published(wanted))}; found {there}. It comes from {wanted.where}'
        )
    return [folder / part.name for part in wanted.parts]


def _published(wanted: ClassSet) -> frozenset[str]:
    """Names at the top of the published set, without the files that ``finish`` writes."""
    return wanted.holds - frozenset(wanted.written)


def _fetch(wanted: ClassSet, part: SourceFile, folder: Path, command: str) -> Path:
    """Download ``part`` into ``folder``, or find it there."""
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


def count(wanted: ClassSet, folder: Path, partial: bool) -> dict[str, int]:
    """Count the images of each split with the data set that reads it, and check that all files exist.

    Args:
        wanted: The set.
        folder: Folder of the prepared set.
        partial: Accept other numbers than published.

    Raises:
        LayoutError: If a list cannot be read, or names missing files.
        CountError: If the number of images of a split, or of classes, is not the published one.
    """
    if any(not str(split.dataset['type']).startswith('mmgps.') for split in wanted.splits):
        require('mmpretrain')
        init_default_scope('mmpretrain')
    found: dict[str, int] = {}
    classes: set[int] = set()
    for split in wanted.splits:
        infos = _listed(wanted, split, folder)
        found[split.name] = len(infos)
        classes = classes or {info['gt_label'] for info in infos}
        if len(infos) != split.images and not partial:
            raise CountError(
                f'{wanted.title} has {len(infos)} images in its split {split.name}, expected {split.images}: fetch it '
                'again, or add --allow-partial to accept this number'
            )
    if wanted.classes is not None and len(classes) != wanted.classes and not partial:
        raise CountError(f'{wanted.title} has {len(classes)} classes, expected {wanted.classes}: fetch it again')
    return found


def _listed(wanted: ClassSet, split: Split, folder: Path) -> list[Mapping[str, Any]]:
    try:
        dataset = DATASETS.build(dict(split.dataset, data_root=str(folder)))
        infos = [dataset.get_data_info(at) for at in range(len(dataset))]
    except (OSError, RuntimeError, AssertionError, ValueError, KeyError) as error:
        raise LayoutError(
            f'the lists of {wanted.title}, split {split.name}, cannot be read ({type(error).__name__}: {error}); '
            f'expected {listing(wanted.holds)}'
        ) from error
    missing = [info['img_path'] for info in infos if not Path(info['img_path']).is_file()]
    if missing:
        names = listing(str(Path(path).relative_to(folder)) for path in missing)
        raise LayoutError(
            f'{len(missing)} of the {len(infos)} images of {wanted.title}, split {split.name}, are missing: {names}; '
            'fetch the set again'
        )
    return infos
