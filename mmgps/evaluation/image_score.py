"""Scores of one image, their average over a set, and a CSV table of all images."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmgps.utils.atomic_file import write_atomically

from .foreground import (
    IGNORE_INDEX,
    Mask,
    check_same_source,
    dice_iou,
    foreground_probability,
    split_truth,
    two_class_mask,
)

COLUMNS = ('image', 'Dice', 'IoU', 'foreground')
STRUCTURE_COLUMNS = ('Sm', 'wFm', 'meanEm', 'MAE')


@dataclass(frozen=True)
class StructureScores:
    """Structure measures of one image, as fractions. ``em_curve`` has one E-measure for each of 256 thresholds."""

    sm: float
    wfm: float
    mae: float
    em_curve: NDArray[np.float64]


def structure_scores(probability: NDArray[np.float64], target: Mask, valid: Mask) -> StructureScores:
    """Compute S-measure, weighted F, E-measure and mean absolute error of one map.

    S-measure: Fan et al. 2017 with alpha 0.5; weighted F: Margolin et al. 2014 with beta 1; E-measure: Fan et al. 2018.
    Unlike the scripts that polyp papers share, this does **not** stretch the map of each image to [0, 1]: stretching
    turns the faint map of a network that found nothing into a confident one.

    MAE and E-measure leave out ignored pixels. S-measure and weighted F depend on neighbourhoods, so they count ignored
    pixels as correctly predicted background. If the truth is empty, weighted F is undefined and set to 1 for a map that
    nowhere exceeds 0.5 and to 0 otherwise, S-measure is one minus the mean of the map, and the E-measure is the share
    of background at each threshold.

    Two departures from ``pysodmetrics`` keep every score finite and at most 1. The E-measure is the mean over pixels,
    as in the publication's equation; ``pysodmetrics`` follows the authors' script, which divides by one pixel less and
    gives 1.0025 for a perfect map of 20x20 pixels. If the centroid of the truth lies in the last row or column, two of
    the S-measure's quadrants are empty; they have no weight here, while ``pysodmetrics`` returns NaN.

    Args:
        probability: ``(H, W)`` in [0, 1], or labels of 0 and 1.
        target: Boolean ``(H, W)``, false where ``valid`` is.
        valid: Boolean ``(H, W)``.
    """
    # It imports scikit-learn, which takes a second; only runs with these measures should pay for it.
    from py_sod_metrics import MAE, Emeasure, Smeasure, WeightedFmeasure

    shown = np.where(valid, probability, 0.0)

    class QuadrantSmeasure(Smeasure):
        """S-measure whose empty quadrants count as 0, at their weight of 0."""

        def ssim(self, pred: NDArray[np.float64], gt: Mask) -> float:
            return super().ssim(pred, gt) if pred.size else 0.0

    smeasure, weighted = QuadrantSmeasure(), WeightedFmeasure()
    smeasure.step(shown, target, normalize=False)
    weighted.step(shown, target, normalize=False)
    found = float(weighted.weighted_fms[0]) if target.any() else float(not (shown > 0.5).any())

    emeasure, error = Emeasure(), MAE()
    counted, truth = probability[valid][None], target[valid][None]
    emeasure.step(counted, truth, normalize=False)
    error.step(counted, truth, normalize=False)
    # Divide the sum by the number of pixels; rounding may leave the last bit above 1.
    curve = np.minimum(emeasure.changeable_ems[0] * ((counted.size - 1 + np.spacing(1)) / counted.size), 1.0)
    return StructureScores(float(smeasure.sms[0]), found, float(error.maes[0]), curve)


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image; only a few numbers, because every rank sends its scores to the first.

    ``dice`` and ``iou`` are fractions. ``foreground``, ``labelled`` and ``pixels`` count pixels of the truth:
    foreground, not ignored, all.
    """

    name: str
    dice: float
    iou: float
    foreground: int
    labelled: int
    pixels: int
    structure: StructureScores | None = None


def score_image(
    name: str,
    truth: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike | None = None,
    structure: bool = True,
    ignore_index: int = IGNORE_INDEX,
) -> ImageScore:
    """Score one prediction at the size of its truth.

    Args:
        name: Name of the image for tables and messages.
        truth: ``(H, W)`` of 0, 1 and ``ignore_index``.
        labels: ``(H, W)`` of 0 and 1, the predicted labels.
        scores: ``(1 or 2, H, W)``, mmseg's ``seg_logits``, for the structure measures, which otherwise use the labels
            as a map of zeros and ones.
        structure: Also compute the structure measures, which cost many times as much as Dice and IoU.
        ignore_index: Label of pixels that do not count.

    Raises:
        ValueError: If sizes differ, a value is not listed above, or ``labels`` do not come from ``scores``.
    """
    target, valid = split_truth(truth, ignore_index)
    predicted = two_class_mask(labels, 'the prediction')
    if predicted.shape != target.shape:
        raise ValueError(
            f'the prediction has {_size(predicted)} and the truth {_size(target)} pixels; mmseg predicts at the '
            'original size, so put LoadAnnotations after Resize in the test pipeline'
        )
    dice, iou = dice_iou(predicted, target, valid)
    measures = None
    if structure:
        probability = predicted.astype(np.float64)
        if scores is not None:
            probability = foreground_probability(scores)
            check_same_source(probability, predicted)
        measures = structure_scores(probability, target, valid)
    return ImageScore(
        name, dice, iou, int(np.count_nonzero(target)), int(np.count_nonzero(valid)), target.size, measures
    )


def average(scores: Sequence[ImageScore]) -> dict[str, float]:
    """Average the scores over images, in percent, rounded to the four decimals of mmengine's log.

    ``meanEm`` and ``maxEm`` are the mean and the maximum, over thresholds, of the E-measure averaged over images.

    Raises:
        ValueError: If there is no image, or if no image has foreground while pixels are ignored: then the masks are raw
            ones of 0 and 255 instead of labels, and every polyp would be ignored.
    """
    if not scores:
        raise ValueError('no image was scored; the evaluation set is empty')
    ignored = sum(score.labelled < score.pixels for score in scores)
    if ignored and not any(score.foreground for score in scores):
        raise ValueError(
            f'none of {len(scores)} images has a foreground pixel, but {ignored} have ignored ones: the masks hold '
            '255 where 1 is expected, or reduce_zero_label is set; prepare the set with tools/prepare_polyp.py and '
            'leave reduce_zero_label at False'
        )
    means = {
        'Dice': float(np.mean([score.dice for score in scores])),
        'IoU': float(np.mean([score.iou for score in scores])),
        **_structure_means([score.structure for score in scores if score.structure is not None]),
    }
    return {key: round(100 * mean, 4) for key, mean in means.items()}


def _structure_means(scores: Sequence[StructureScores]) -> dict[str, float]:
    if not scores:
        return {}
    curve = np.mean([score.em_curve for score in scores], axis=0)
    return {
        'Sm': float(np.mean([score.sm for score in scores])),
        'wFm': float(np.mean([score.wfm for score in scores])),
        'meanEm': float(curve.mean()),
        'maxEm': float(curve.max()),
        'MAE': float(np.mean([score.mae for score in scores])),
    }


def _size(array: np.ndarray) -> str:
    return 'x'.join(map(str, array.shape))


def write_score_table(path: str | os.PathLike[str], scores: Sequence[ImageScore]) -> None:
    """Write one row per image, in percent with four decimals, replacing ``path`` atomically.

    ``foreground`` is the foreground's share of the labelled pixels, to sort polyps by size. The structure measures
    follow if they were computed; ``maxEm`` is a maximum over the whole set and has no column.
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
