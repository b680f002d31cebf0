"""Oxford-17 Flowers from a folder with one list of labels, and lists for its parts."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from mmgps.datasets.prepare.errors import LayoutError

SIZES = {'test': 20, 'val': 20, 'train': 40}
"""Images of each class, as in each of the three published splits."""
FEW = 5


def write_lists(folder: Path) -> None:
    """Write ``train.txt``, ``val.txt``, ``test.txt`` and ``train5.txt``: path and class from 0 of each image.

    The images of a class are put in the order of the SHA-256 of their paths, which no order of publication shapes: the
    first 20 are for testing, the next 20 for choosing, the rest for training. ``train5.txt`` has the first five of the
    rest.

    Args:
        folder: With ``labels.csv``, whose lines are the path of an image and its class.

    Raises:
        LayoutError: If a line of it is something else.
    """
    members: dict[str, list[str]] = {}
    for row in csv.reader((folder / 'labels.csv').read_text().splitlines()):
        if len(row) != 2:
            raise LayoutError(f'labels.csv has the line {",".join(row)!r}, expected the path of an image and its class')
        members.setdefault(row[1], []).append(row[0])
    lists: dict[str, list[str]] = {split: [] for split in (*SIZES, f'train{FEW}')}
    for label, name in enumerate(sorted(members)):
        ordered = sorted(members[name], key=lambda path: hashlib.sha256(path.encode()).hexdigest())
        test, val = ordered[: SIZES['test']], ordered[SIZES['test'] : SIZES['test'] + SIZES['val']]
        train = ordered[SIZES['test'] + SIZES['val'] :]
        for split, paths in (('test', test), ('val', val), ('train', train), (f'train{FEW}', train[:FEW])):
            lists[split] += [f'{path} {label}' for path in paths]
    for split, lines in lists.items():
        (folder / f'{split}.txt').write_text('\n'.join(lines) + '\n')
