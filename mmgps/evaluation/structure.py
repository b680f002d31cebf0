"""Measures of a foreground map's structure, by ``pysodmetrics``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .foreground import Mask


@dataclass(frozen=True)
class StructureScores:
    """Structure measures of one image, as fractions. ``em_curve`` has one E-measure for each of 256 thresholds."""

    sm: float
    wfm: float
    mae: float
    em_curve: NDArray[np.float64]


def structure_scores(probability: NDArray[np.float64], target: Mask, valid: Mask) -> StructureScores:
    """S-measure, weighted F, E-measure and mean absolute error of one map.

    S-measure: Fan et al. 2017 with alpha 0.5; weighted F: Margolin et al. 2014 with beta 1; E-measure: Fan et al. 2018.
    Unlike the scripts that polyp papers share, the map is **not** stretched to [0, 1] image by image: stretching turns
    the faint map of a network that found nothing into a confident one.

    Ignored pixels are left out of MAE and E-measure. S-measure and weighted F look at neighbourhoods, so there they
    count as background that was predicted as background. Where the truth is empty, weighted F, which is undefined, is 1
    for a map that nowhere exceeds 0.5 and 0 otherwise, S-measure is one minus the mean of the map, and the E-measure
    the share of background at each threshold.

    Two departures from ``pysodmetrics`` keep every score finite and at most 1. The E-measure is the mean over pixels,
    as in the publication's equation; ``pysodmetrics`` follows the authors' script, which divides by one pixel less and
    gives a perfect map of 20x20 pixels 1.0025. And where the centroid of the truth lies in the last row or column, two
    of the S-measure's quadrants are empty; they weigh nothing here, and make the score NaN there.

    Args:
        probability: ``(H, W)`` in [0, 1]; a map of labels is one of zeros and ones.
        target: Boolean ``(H, W)``, false where ``valid`` is.
        valid: Boolean ``(H, W)``.
    """
    # Loads scikit-learn, which takes a second, so only runs that ask for these measures pay it.
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
    # The sum over pixels by their number; rounding may leave the last bit above 1.
    curve = np.minimum(emeasure.changeable_ems[0] * ((counted.size - 1 + np.spacing(1)) / counted.size), 1.0)
    return StructureScores(float(smeasure.sms[0]), found, float(error.maes[0]), curve)
