"""Turn a published polyp set into the layout that ``PolypDataset`` reads."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from mmgps.datasets.prepare.errors import CountError, EmptyMasksError, SizeMismatchError
from mmgps.datasets.prepare.files import Files, open_files
from mmgps.datasets.prepare.images import decode_image, decode_mask, encode_png
from mmgps.datasets.prepare.pairs import Pair, find_layout, find_pairs
from mmgps.datasets.prepare.sources import PolypSource
from mmgps.datasets.prepare.split import val_ids
from mmgps.datasets.prepare.summary import Summary
from mmgps.datasets.prepare.target import building
from mmgps.utils.download import Progress

JPEG = frozenset({'.jpg', '.jpeg'})


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

    There, ``images/{train,val}/ID.jpg`` (``.png`` unless all images of the set are JPEG; neither is encoded anew) go
    with ``annotations/{train,val}/ID.png``, ``(H, W)`` uint8 with 1 where the grey level is above 127 and else 0, and
    ``train.txt`` and ``val.txt`` list the ids. ``out`` appears only when all of it is written.

    Args:
        source: Which set it is.
        at: A zip as published, or a folder with the same content.
        out: Folder to make.
        split_file: Text file with the ids for validation; the rest is for training. By default the official split, and
            for sets without one, which are for testing, everything in ``val``.
        allow_partial: Accept a number of images other than the published one, and an official split that names more.
        force: Replace a prepared set at ``out``.
        progress: Called with the images done and their number.

    Returns:
        What was written.

    Raises:
        PrepareError: One of the classes in ``mmgps.datasets.prepare.errors``; ``out`` is then as it was before.
    """
    summary = Summary(source, Path(out))
    with open_files(at) as files, building(Path(out), force) as folder:
        pairs = _checked_pairs(source, files, allow_partial)
        held_out = val_ids(source, {pair.id for pair in pairs}, split_file, allow_partial)
        suffix = '.jpg' if all(_suffix(pair.image) in JPEG for pair in pairs) else '.png'
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
            'again, or add --allow-partial to take what is there'
        )
    return pairs


def _write_pair(pair: Pair, files: Files, folder: Path, split: str, suffix: str, summary: Summary) -> None:
    data = files.read(pair.image)
    image = decode_image(data, pair.image)
    mask = decode_mask(files.read(pair.mask), pair.mask)
    if image.shape[:2] != mask.shape:
        raise SizeMismatchError(
            f'{pair.image} is {image.shape[1]}x{image.shape[0]} and its mask {pair.mask} is '
            f'{mask.shape[1]}x{mask.shape[0]} (width x height): they cannot belong together; fetch the set again'
        )
    same = suffix == '.jpg' or _suffix(pair.image) == suffix
    _write(folder / 'images' / split / f'{pair.id}{suffix}', data if same else encode_png(image))
    _write(folder / 'annotations' / split / f'{pair.id}.png', encode_png(mask))
    summary.add(split, mask)


def _write_lists(folder: Path, pairs: list[Pair], held_out: frozenset[str]) -> None:
    ids = {'train': [p.id for p in pairs if p.id not in held_out], 'val': [p.id for p in pairs if p.id in held_out]}
    for split, listed in ids.items():
        if listed:
            _write(folder / f'{split}.txt', ''.join(f'{name}\n' for name in listed).encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
