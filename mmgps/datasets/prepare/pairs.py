"""Pair the images of a set with their masks, and choose the validation images."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .archives import Files
from .errors import LayoutError, SplitError, UnpairedError, listing
from .sources import Layout, PolypSource

SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff'})


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as paths in the source; ``id`` is the image's name without suffix."""

    id: str
    image: str
    mask: str


def find_layout(source: PolypSource, files: Files) -> tuple[Layout, str]:
    """Find the first layout of ``source`` whose two folders exist, and the folder that contains both.

    Raises:
        LayoutError: If no layout fits, or one fits in several places.
    """
    folders = {_folder(name) for name in files.names if suffix_of(name) in SUFFIXES}
    for layout in source.layouts:
        roots = [root for root in _roots(layout.images, folders) if _join(root, layout.masks) in folders]
        if len(roots) > 1:
            raise LayoutError(
                f'{files.at} holds {layout} more than once, in {listing(root or "." for root in roots)}: '
                f'give the folder that is {source.title}'
            )
        if roots:
            return layout, roots[0]
    expected = '; or '.join(str(layout) for layout in source.layouts)
    found = listing(f'{folder or "."}/' for folder in folders) or 'no folder with images'
    raise LayoutError(f'{files.at} does not look like {source.title}: expected {expected}; found {found}')


def find_pairs(layout: Layout, root: str, files: Files) -> list[Pair]:
    """Pair images and masks, in the order of their ids.

    Raises:
        UnpairedError: If an image or a mask has no partner, or two files claim one id.
    """
    images = _by_id(layout.image_name, '', _join(root, layout.images), files)
    masks = _by_id(layout.image_name, layout.mask_prefix, _join(root, layout.masks), files)
    alone = [images[key] for key in images.keys() - masks.keys()]
    orphans = [masks[key] for key in masks.keys() - images.keys()]
    if alone or orphans:
        parts = [f'{len(alone)} images have no mask: {listing(alone)}'] if alone else []
        parts += [f'{len(orphans)} masks have no image: {listing(orphans)}'] if orphans else []
        raise UnpairedError(f'in {files.at}, {"; ".join(parts)}. Expected {layout}; fetch the set again')
    return [Pair(key, images[key], masks[key]) for key in sorted(images)]


def _by_id(image_name: str, prefix: str, folder: str, files: Files) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in files.names:
        match = re.fullmatch(f'{re.escape(prefix)}({image_name})', PurePosixPath(name).stem)
        if _folder(name) == folder and suffix_of(name) in SUFFIXES and match:
            if match[1] in found:
                raise UnpairedError(f'in {files.at}, {found[match[1]]} and {name} claim the same id: remove one')
            found[match[1]] = name
    return found


def _roots(tail: str, folders: Iterable[str]) -> list[str]:
    """Return the folders that contain ``tail``."""
    return sorted(f[: -len(tail)].rstrip('/') for f in folders if f'/{f}'.endswith(f'/{tail}'))


def _join(root: str, folder: str) -> str:
    return f'{root}/{folder}'.strip('/')


def _folder(name: str) -> str:
    return name.rpartition('/')[0]


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with the dot."""
    return PurePosixPath(name).suffix.lower()


def read_ids(path: str | Path) -> frozenset[str]:
    """Read one id per line from a text file, dropping folders, image suffixes and empty lines.

    Raises:
        SplitError: If the file does not exist or holds no id.
    """
    path = Path(path)
    if not path.is_file():
        raise SplitError(f'{path} does not exist: expected a text file with one image id per line')
    names = [Path(line.strip()) for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    if not names:
        raise SplitError(f'{path} is empty: expected one image id per line')
    return frozenset(name.stem if name.suffix.lower() in SUFFIXES else name.name for name in names)


def val_ids(source: PolypSource, ids: Collection[str], split_file: str | Path | None, partial: bool) -> frozenset[str]:
    """Select the validation ids: those of ``split_file``, else the official split, else all.

    Args:
        source: The published set.
        ids: Ids of all images.
        split_file: File with the validation ids, or ``None``.
        partial: Accept an official split with ids that are not in ``ids``; a ``split_file`` must always match.

    Raises:
        SplitError: If a list that must match names missing ids, or if all listed ids are missing.
    """
    listed = read_ids(split_file) if split_file else source.official_val()
    if listed is None:
        return frozenset(ids)
    missing = listed.difference(ids)
    if missing and (split_file or not partial or len(missing) == len(listed)):
        raise SplitError(
            f'{len(missing)} of the {len(listed)} validation ids in {split_file or source.val_list} are missing from '
            f'this copy of {source.title}: {listing(missing)}. Give a list for this copy with --split-file'
        )
    return listed.intersection(ids)
