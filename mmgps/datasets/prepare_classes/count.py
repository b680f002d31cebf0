"""Count a set by the data set that will read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, init_default_scope

from mmgps.datasets.prepare.errors import CountError, LayoutError, listing
from mmgps.datasets.prepare_classes.sets import ClassSet, Split
from mmgps.utils.requirements import require


def count(wanted: ClassSet, folder: Path, partial: bool) -> dict[str, int]:
    """Images of each split, all of whose files are there.

    Args:
        wanted: The set.
        folder: Where it was written.
        partial: Accept other numbers than the published ones.

    Raises:
        LayoutError: If a list cannot be read, or names files that are not there.
        CountError: If a split or the classes are not as many as published.
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
                'again, or add --allow-partial to take what is there'
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
