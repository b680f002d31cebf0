"""Which images are for validation."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mmgps.datasets.prepare.errors import SplitError, listing
from mmgps.datasets.prepare.pairs import SUFFIXES
from mmgps.datasets.prepare.sources import PolypSource


def read_ids(path: str | Path) -> frozenset[str]:
    """Ids listed in a text file, one per line; folders and image suffixes are dropped, empty lines skipped.

    Raises:
        SplitError: If there is no such file, or no id in it.
    """
    path = Path(path)
    if not path.is_file():
        raise SplitError(f'{path} does not exist: expected a text file with one image id per line')
    names = [Path(line.strip()) for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    if not names:
        raise SplitError(f'{path} is empty: expected one image id per line')
    return frozenset(name.stem if name.suffix.lower() in SUFFIXES else name.name for name in names)


def val_ids(source: PolypSource, ids: Collection[str], split_file: str | Path | None, partial: bool) -> frozenset[str]:
    """Those of ``ids`` that are for validation: as ``split_file`` says, else the official split, else all.

    Args:
        source: The set.
        ids: Ids of all images there are.
        split_file: List of the validation ids, or ``None``.
        partial: Whether ids of the official split may be missing among ``ids``; those of ``split_file`` never may.

    Raises:
        SplitError: If the list names ids that are not there, or none that is.
    """
    listed = read_ids(split_file) if split_file else source.official_val()
    if listed is None:
        return frozenset(ids)
    missing = listed.difference(ids)
    if missing and (split_file or not partial or len(missing) == len(listed)):
        raise SplitError(
            f'{len(missing)} of the {len(listed)} validation ids in {split_file or source.val_list} are no images of '
            f'this copy of {source.title}: {listing(missing)}. Give a list that fits it with --split-file'
        )
    return listed.intersection(ids)
