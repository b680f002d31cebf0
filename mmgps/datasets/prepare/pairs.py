"""Find the images of a set and the mask of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from mmgps.datasets.prepare.errors import LayoutError, UnpairedError, listing
from mmgps.datasets.prepare.files import Files
from mmgps.datasets.prepare.sources import Layout, PolypSource

SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff'})


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as paths in the source; ``id`` is the image's name without suffix."""

    id: str
    image: str
    mask: str


def find_layout(source: PolypSource, files: Files) -> tuple[Layout, str]:
    """The first layout of ``source`` whose two folders are there, and the folder that both lie in.

    Raises:
        LayoutError: If no layout fits, or one fits in several places.
    """
    folders = {_folder(name) for name in files.names if _suffix(name) in SUFFIXES}
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
    """Pairs in the order of their ids.

    Raises:
        UnpairedError: If an image or a mask is alone, or two files of a kind differ in their suffix only.
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
        if _folder(name) == folder and _suffix(name) in SUFFIXES and match:
            if match[1] in found:
                raise UnpairedError(f'in {files.at}, {found[match[1]]} and {name} claim the same id: remove one')
            found[match[1]] = name
    return found


def _roots(tail: str, folders: Iterable[str]) -> list[str]:
    """Folders that ``tail`` lies in."""
    return sorted(f[: -len(tail)].rstrip('/') for f in folders if f'/{f}'.endswith(f'/{tail}'))


def _join(root: str, folder: str) -> str:
    return f'{root}/{folder}'.strip('/')


def _folder(name: str) -> str:
    return name.rpartition('/')[0]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
