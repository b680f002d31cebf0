"""Convert a published polyp set into the layout that ``PolypDataset`` reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mmgps.utils.download import Progress
from mmgps.utils.progress import ProgressLine

from .archives import Files, open_files
from .errors import CountError, EmptyMasksError, SizeMismatchError, UnreadableImageError
from .pairs import Pair, find_layout, find_pairs, suffix_of, val_ids
from .sources import PolypSource, fetch, get_source
from .target import building, check_replaceable

THRESHOLD = 127
"""Higher grey levels are foreground: JPEG leaves a grey band around black and white regions."""
JPEG = frozenset({'.jpg', '.jpeg'})


@dataclass
class Summary:
    """Counts, sizes and foreground shares of a prepared set, collected image by image.

    Attributes:
        source: The published set.
        out: Folder it was written to.
        counts: Images per split.
        sizes: ``(width, height)`` of each image in pixels.
        shares: Foreground pixels / pixels of each mask.
    """

    source: PolypSource
    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def add(self, split: str, mask: np.ndarray) -> None:
        """Count one image with its ``mask``, ``(H, W)`` of 0 and 1."""
        self.counts[split] = self.counts.get(split, 0) + 1
        self.sizes.append((mask.shape[1], mask.shape[0]))
        self.shares.append(float(mask.mean()))

    def __str__(self) -> str:
        counts = ', '.join(f'{count} {split}' for split, count in sorted(self.counts.items()))
        small, large = (extreme(self.sizes, key=lambda size: size[0] * size[1]) for extreme in (min, max))
        return (
            f'{self.source.title} in {self.out}: {counts}\n'
            f'sizes: {small[0]}x{small[1]} to {large[0]}x{large[1]} pixels, {len(set(self.sizes))} different\n'
            f'foreground: {np.mean(self.shares):.1%} of an image on average, {min(self.shares):.1%} to '
            f'{max(self.shares):.1%}, {self.shares.count(0.0)} masks empty\n'
            f'cite: {self.source.cite}'
        )


def _decode(data: bytes, name: str, flag: int) -> np.ndarray:
    """Decode an image or a mask to uint8, rotated according to its EXIF data."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:  # raised for empty data, and for sizes beyond OpenCV's limit
        image = None
    if image is None:
        raise UnreadableImageError(f'{name} ({len(data)} bytes) is cut off or not an image: fetch the set again')
    return image


def convert(
    source: PolypSource,
    at: str | Path,
    out: str | Path,
    *,
    split_file: str | Path | None = None,
    allow_partial: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Write the set in the zip or folder ``at`` to ``out``.

    The result has ``images/{train,val}/ID.jpg`` (``.png`` unless all images of the set are JPEG; neither is encoded
    again) and ``annotations/{train,val}/ID.png``, ``(H, W)`` uint8 with 1 where the grey level exceeds 127 and 0
    elsewhere. ``train.txt`` and ``val.txt`` list the ids. ``out`` appears only when everything is written.

    Args:
        source: The published set.
        at: Published zip, or a folder with the same content.
        out: Folder to create.
        split_file: Text file with the validation ids; all others are for training. The official split by default; sets
            without one are for testing, so all their images go to ``val``.
        allow_partial: Accept another number of images than published, and an official split with missing images.
        force: Replace a prepared set at ``out``.
        progress: Called with the number of images done and the total.

    Returns:
        Summary of the prepared set.

    Raises:
        PrepareError: One of the classes in ``mmgps.datasets.prepare.errors``; ``out`` is then as it was before.
    """
    summary = Summary(source, Path(out))
    with open_files(at) as files, building(Path(out), force) as folder:
        pairs = _checked_pairs(source, files, allow_partial)
        held_out = val_ids(source, {pair.id for pair in pairs}, split_file, allow_partial)
        suffix = '.jpg' if all(suffix_of(pair.image) in JPEG for pair in pairs) else '.png'
        for done, pair in enumerate(pairs, start=1):
            _write_pair(pair, files, folder, 'val' if pair.id in held_out else 'train', suffix, summary)
            if progress:
                progress(done, len(pairs))
        _write_lists(folder, pairs, held_out)
        if not any(summary.shares):
            raise EmptyMasksError(
                f'no mask in {at} has a grey level above 127: expected 0 and 255; if they hold 0 and 1, the set is '
                'prepared already'
            )
    return summary


def _checked_pairs(source: PolypSource, files: Files, allow_partial: bool) -> list[Pair]:
    layout, root = find_layout(source, files)
    pairs = find_pairs(layout, root, files)
    if not pairs or (len(pairs) != layout.count and not allow_partial):
        raise CountError(
            f'{files.at} holds {len(pairs)} images of {source.title} ({layout}), expected {layout.count}: fetch it '
            'again, or add --allow-partial to accept this number'
        )
    return pairs


def _write_pair(pair: Pair, files: Files, folder: Path, split: str, suffix: str, summary: Summary) -> None:
    data = files.read(pair.image)
    image = _decode(data, pair.image, cv2.IMREAD_COLOR)
    mask = (_decode(files.read(pair.mask), pair.mask, cv2.IMREAD_GRAYSCALE) > THRESHOLD).astype(np.uint8)
    if image.shape[:2] != mask.shape:
        raise SizeMismatchError(
            f'{pair.image} is {image.shape[1]}x{image.shape[0]} and its mask {pair.mask} is '
            f'{mask.shape[1]}x{mask.shape[0]} (width x height): they cannot belong together; fetch the set again'
        )
    same = suffix == '.jpg' or suffix_of(pair.image) == suffix
    _write(folder / 'images' / split / f'{pair.id}{suffix}', data if same else _png(image))
    _write(folder / 'annotations' / split / f'{pair.id}.png', _png(mask))
    summary.add(split, mask)


def _write_lists(folder: Path, pairs: list[Pair], held_out: frozenset[str]) -> None:
    ids = {'train': [p.id for p in pairs if p.id not in held_out], 'val': [p.id for p in pairs if p.id in held_out]}
    for split, listed in ids.items():
        if listed:
            _write(folder / f'{split}.txt', ''.join(f'{name}\n' for name in listed).encode())


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode('.png', image)[1].tobytes()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def prepare(
    name: str,
    out: str | Path | None = None,
    *,
    at: str | Path | None = None,
    download_dir: str | Path | None = None,
    split_file: str | Path | None = None,
    allow_partial: bool = False,
    force: bool = False,
) -> Summary:
    """Prepare the set called ``name``, with progress on standard error.

    Args:
        name: Name of a set in ``mmgps.datasets.prepare.SOURCES``.
        out: Folder to create; ``data/NAME`` by default, with underscores.
        at: Existing zip or folder; downloaded by default.
        download_dir: Folder that keeps a downloaded zip; beside ``out`` by default.
        split_file: As for ``convert``.
        allow_partial: As for ``convert``.
        force: As for ``convert``.

    Raises:
        ValueError: If no set has this name.
        PrepareError: One of the classes in ``mmgps.datasets.prepare.errors``; ``out`` is then as it was before.
    """
    source = get_source(name)
    out = Path(out or Path('data', name.replace('-', '_')))
    check_replaceable(out, force)  # fails before a useless download
    if at is None:
        at = fetch(source, download_dir or out.parent, ProgressLine(f'downloading {source.title}', 'MB', 1e6))
    progress = ProgressLine(f'converting {source.title}', 'images')
    return convert(source, at, out, split_file=split_file, allow_partial=allow_partial, force=force, progress=progress)
