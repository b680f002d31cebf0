"""The scores of every image as a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence

from mmgps.utils.atomic_file import write_atomically

from .image_score import ImageScore

COLUMNS = ('image', 'Dice', 'IoU', 'foreground')
STRUCTURE_COLUMNS = ('Sm', 'wFm', 'meanEm', 'MAE')


def write_score_table(path: str | os.PathLike[str], scores: Sequence[ImageScore]) -> None:
    """Write one row per image, in percent with four decimals, replacing ``path`` at once.

    ``foreground`` is the truth's share of the labelled pixels, to sort polyps by size. The structure measures follow
    where they were taken; ``maxEm`` is a maximum over the whole set and has no column.
    """
    structure = any(score.structure is not None for score in scores)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator='\n')
    writer.writerow(COLUMNS + STRUCTURE_COLUMNS if structure else COLUMNS)
    for score in scores:
        writer.writerow([score.name, *(f'{100 * value:.4f}' for value in _row(score))])
    write_atomically(path, table.getvalue().encode())


def _row(score: ImageScore) -> list[float]:
    row = [score.dice, score.iou, score.foreground / score.labelled]
    if score.structure is not None:
        measures = score.structure
        row += [measures.sm, measures.wfm, float(measures.em_curve.mean()), measures.mae]
    return row
