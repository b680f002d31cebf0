"""Foreground Dice and IoU of one image, and conversion of labels and network outputs to masks. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]

IGNORE_INDEX = 255
#: Probabilities closer than this count as equal when labels are compared with their scores.
ROUNDING = 1e-6


def dice_iou(prediction: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> tuple[float, float]:
    """Compute Dice and intersection over union of the foreground of one image, as fractions.

    ``dice = 2 |P & T| / (|P| + |T|)`` and ``iou = |P & T| / |P | T|``. Correct background brings no reward, and a false
    positive costs as much as a missed pixel: the IoU of a prediction that is all foreground is the foreground's share
    of the image. If ``T`` is empty, both are 1 if ``P`` is empty too and 0 otherwise.

    Args:
        prediction: ``(H, W)`` of 0 and 1, or boolean.
        target: The same shape and values.
        valid: Boolean ``(H, W)``, false where a pixel does not count; all pixels count by default.

    Raises:
        ValueError: If the shapes differ or a value is neither 0 nor 1.
    """
    predicted, truth = two_class_mask(prediction, 'prediction'), two_class_mask(target, 'target')
    if predicted.shape != truth.shape:
        raise ValueError(f'prediction {predicted.shape} and target {truth.shape} differ in shape')
    if valid is not None:
        counts = np.asarray(valid, dtype=bool)
        predicted, truth = predicted[counts], truth[counts]
    shared = np.count_nonzero(predicted & truth)
    areas = np.count_nonzero(predicted) + np.count_nonzero(truth)
    if areas == 0:
        return 1.0, 1.0
    return 2 * shared / areas, shared / (areas - shared)


def two_class_mask(labels: ArrayLike, name: str) -> Mask:
    """Convert labels of 0 and 1, of any numeric type, to a boolean array; ``name`` is for the error message.

    Raises:
        ValueError: If a label is neither 0 nor 1.
    """
    array: NDArray[Any] = np.asarray(labels)
    if array.dtype == bool:
        return array
    foreground: Mask = array == 1
    _refuse(array, ~(foreground | (array == 0)), name, '0 (background) and 1 (foreground)')
    return foreground


def split_truth(labels: ArrayLike, ignore_index: int = IGNORE_INDEX) -> tuple[Mask, Mask]:
    """Split the truth into its foreground and the pixels that count.

    Args:
        labels: ``(H, W)`` of 0, 1 and ``ignore_index``.
        ignore_index: Label of pixels that do not count. They are never foreground.

    Returns:
        Two boolean ``(H, W)``: foreground, valid.

    Raises:
        ValueError: If ``labels`` holds another label, or every pixel is ignored.
    """
    array = np.asarray(labels)
    valid, foreground = array != ignore_index, array == 1
    _refuse(
        array,
        valid & ~foreground & (array != 0),
        'the truth',
        f'0 (background), 1 (foreground) and {ignore_index} (ignored); grey masks must be thresholded when the set is '
        'prepared',
    )
    if not valid.any():
        raise ValueError(f'every pixel of the truth is {ignore_index} (ignored), which leaves nothing to score')
    return foreground & valid, valid


def foreground_probability(scores: ArrayLike) -> NDArray[np.float64]:
    """Compute the probability of the foreground from the ``seg_logits`` that mmseg writes into a sample.

    Args:
        scores: ``(2, H, W)`` logits, whose softmax is taken; or ``(1, H, W)`` probabilities, because mmseg applies the
            sigmoid of heads with one channel before it writes ``seg_logits``.

    Returns:
        ``(H, W)`` in [0, 1].

    Raises:
        ValueError: If the number of channels differs, a value is not finite, or the one channel leaves [0, 1].
    """
    array: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
    if array.ndim != 3 or array.shape[0] not in (1, 2):
        raise ValueError(f'scores of shape {array.shape}: expected (2, H, W) logits or (1, H, W) probabilities')
    if not np.isfinite(array).all():
        raise ValueError('scores that are not finite: the network overflowed or was trained to NaN')
    if array.shape[0] == 2:
        probability: NDArray[np.float64] = np.exp(-np.logaddexp(0, array[0] - array[1]))
        return probability
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f'one channel of scores from {array.min():.3g} to {array.max():.3g}: expected probabilities in [0, 1]; '
            'let the segmentor apply the sigmoid before it writes seg_logits'
        )
    single: NDArray[np.float64] = array[0]
    return single


def check_same_source(probability: NDArray[np.float64], prediction: Mask) -> None:
    """Check that some threshold of ``probability`` yields ``prediction``.

    mmseg's test-time augmentation merges the labels of a sample but leaves the scores of its last view beside them;
    ``mmgps.SegTTAModel`` merges both.

    Raises:
        ValueError: If no threshold yields it.
    """
    if prediction.all() or not prediction.any():
        return
    if probability[prediction].min() < probability[~prediction].max() - ROUNDING:
        raise ValueError(
            "seg_logits are not the scores that pred_sem_seg comes from (mmseg's SegTTAModel leaves those of the "
            "last view); use tta_model=dict(type='mmgps.SegTTAModel'), which merges them too, or structure=False"
        )


def _refuse(array: NDArray[Any], wrong: Mask, name: str, expected: str) -> None:
    if wrong.any():
        found = np.unique(array[wrong])
        shown = ', '.join(f'{value:g}' for value in found[:5]) + (', ...' if len(found) > 5 else '')
        raise ValueError(f'{name} holds {shown} in {np.count_nonzero(wrong)} pixels; expected {expected}')
