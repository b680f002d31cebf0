import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from py_sod_metrics import DICEHandler, FmeasureV2, IOUHandler
from sklearn.metrics import f1_score, jaccard_score

from mmgps.evaluation.foreground import (
    check_same_source,
    dice_iou,
    foreground_probability,
    split_truth,
    two_class_mask,
)

masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*(arrays(bool, shape) for _ in range(3)))
)


def loop(prediction, target, valid):
    """Count every pixel in a loop."""
    both = either = total = 0
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            if valid[y, x]:
                p, t = bool(prediction[y, x]), bool(target[y, x])
                both += p and t
                either += p or t
                total += p + t
    return (2 * both / total, both / either) if either else (1.0, 1.0)


@given(masks)
def test_agrees_with_a_loop_over_pixels(drawn):
    prediction, target, valid = drawn
    assert dice_iou(prediction, target, valid) == pytest.approx(loop(prediction, target, valid), abs=1e-12)


@given(masks)
def test_iou_follows_from_dice(drawn):
    dice, iou = dice_iou(*drawn[:2])
    assert iou == pytest.approx(dice / (2 - dice), abs=1e-12)
    assert 0 <= iou <= dice <= 1


def test_agrees_with_scikit_learn_and_pysodmetrics():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        target, prediction = rng.random((2, 41, 57)) < share
        dice, iou = dice_iou(prediction, target)
        assert dice == pytest.approx(f1_score(target.ravel(), prediction.ravel()), abs=1e-12)
        assert iou == pytest.approx(jaccard_score(target.ravel(), prediction.ravel()), abs=1e-12)
        handlers = {
            'dice': DICEHandler(with_dynamic=False, with_adaptive=False, with_binary=True),
            'iou': IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True),
        }
        theirs = FmeasureV2(handlers)
        theirs.step(prediction.astype(np.float64), target, normalize=False)
        results = theirs.get_results()
        assert dice == pytest.approx(results['dice']['binary'], abs=1e-12)
        assert iou == pytest.approx(results['iou']['binary'], abs=1e-12)


def test_all_foreground_scores_the_share_of_the_foreground():
    target = np.zeros((10, 20), bool)
    target[:4, :5] = True
    dice, iou = dice_iou(np.ones_like(target), target)
    assert iou == pytest.approx(0.1)
    assert dice == pytest.approx(2 * 20 / (200 + 20))


@pytest.mark.parametrize(('predicted', 'true', 'expected'), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0), (1, 1, 1.0)])
def test_empty_masks(predicted, true, expected):
    prediction, target = np.zeros((2, 3, 4), int)
    prediction[1, 1], target[1, 1] = predicted, true
    assert dice_iou(prediction, target) == (expected, expected)


def test_ignored_pixels_leave_no_trace():
    truth = np.array([[1, 1, 0, 0], [255, 255, 255, 0]])
    target, valid = split_truth(truth)
    assert not target[1].any()
    assert valid.tolist() == [[True] * 4, [False, False, False, True]]
    for labels in ([[1, 0, 1, 0], [0, 0, 0, 0]], [[1, 0, 1, 0], [1, 1, 1, 0]]):
        assert dice_iou(labels, target, valid) == pytest.approx((2 / 4, 1 / 3))


def test_ignore_index_can_be_another_label():
    target, valid = split_truth([[1, 0, 7]], ignore_index=7)
    assert target.tolist() == [[True, False, False]]
    assert valid.tolist() == [[True, True, False]]


def test_a_grey_mask_is_refused_with_what_was_found():
    with pytest.raises(ValueError, match=r'holds 2, 130, 254 in 4 pixels.*thresholded when the set is prepared'):
        split_truth(np.array([[0, 1, 130, 255], [2, 254, 2, 0]], np.uint8))


def test_a_truth_of_ignored_pixels_only_is_refused():
    with pytest.raises(ValueError, match='every pixel of the truth is 255'):
        split_truth(np.full((2, 2), 255))


def test_other_labels_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r'the prediction holds 2 in 1 pixels; expected 0'):
        two_class_mask([[0, 1, 2]], 'the prediction')
    with pytest.raises(ValueError, match='nan in 1 pixels'):
        two_class_mask([[0, np.nan]], 'the prediction')
    with pytest.raises(ValueError, match='differ in shape'):
        dice_iou(np.zeros((2, 3)), np.zeros((3, 2)))


def test_probability_of_two_channels_is_their_softmax():
    scores = np.random.default_rng(0).normal(size=(2, 4, 5)) * 5
    expected = np.exp(scores[1]) / np.exp(scores).sum(0)
    np.testing.assert_allclose(foreground_probability(scores), expected, rtol=1e-12)
    assert foreground_probability([[[1e4]], [[-1e4]]]) == 0.0


def test_probability_of_one_channel_is_taken_as_it_is():
    scores = np.random.default_rng(0).random((1, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(foreground_probability(scores), scores[0])


@pytest.mark.parametrize(
    ('scores', 'message'),
    [
        (np.full((1, 2, 2), 3.5), r'from 3.5 to 3.5: expected probabilities'),
        (np.zeros((3, 2, 2)), r'shape \(3, 2, 2\)'),
        (np.zeros((2, 2)), r'shape \(2, 2\)'),
        (np.full((2, 1, 1), np.nan), 'not finite'),
    ],
)
def test_scores_that_are_no_probabilities_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        foreground_probability(scores)


def test_labels_must_come_from_their_scores():
    probability = np.array([[0.1, 0.4, 0.6]])
    for threshold in (0.0, 0.3, 0.5, 0.9):
        check_same_source(probability, probability > threshold)
    with pytest.raises(ValueError, match='SegTTAModel'):
        check_same_source(probability, np.array([[True, False, True]]))
