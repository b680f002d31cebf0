"""Structure measures of a foreground map, computed by ``pysodmetrics``."""

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
    # It imports scikit-learn, which takes a second that only runs with these measures should pay.
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
