import numpy as np
import pytest
from py_sod_metrics import MAE, Emeasure, Smeasure, WeightedFmeasure

from mmgps.evaluation.image_score import average, score_image, structure_scores


def soft_map(rng, shape=(40, 56)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    target = (y - 18) ** 2 + (x - rng.integers(15, 40)) ** 2 < 90
    return np.clip(0.6 * target + 0.2 + 0.1 * rng.normal(size=shape), 0, 1), target


def test_averages_equal_pysodmetrics_own():
    rng = np.random.default_rng(1)
    measures = {'Sm': Smeasure(), 'wFm': WeightedFmeasure(), 'Em': Emeasure(), 'MAE': MAE()}
    scores = []
    for index in range(3):
        probability, target = soft_map(rng)
        for measure in measures.values():
            measure.step(probability, target, normalize=False)
        scores.append(score_image(str(index), target, probability > 0.5, probability[None]))
    ours, curve = average(scores), measures['Em'].get_results()['em']['curve'] * (target.size - 1) / target.size
    expected = {
        'Sm': measures['Sm'].get_results()['sm'],
        'wFm': measures['wFm'].get_results()['wfm'],
        'meanEm': curve.mean(),
        'maxEm': curve.max(),
        'MAE': measures['MAE'].get_results()['mae'],
    }
    for key, value in expected.items():
        assert ours[key] == pytest.approx(100 * value, abs=5e-5), key


def test_scores_are_soft_and_labels_stand_in_for_them():
    probability, target = soft_map(np.random.default_rng(2))
    labels = probability > 0.5
    soft = score_image('a', target, labels, probability[None]).structure
    hard = score_image('a', target, labels).structure
    assert soft.mae == pytest.approx(np.abs(probability - target).mean())
    assert hard.mae == pytest.approx(np.abs(labels ^ target).mean())
    assert soft.mae > hard.mae


def test_a_faint_map_is_not_stretched():
    _, target = soft_map(np.random.default_rng(3))
    scores = structure_scores(0.01 * target, target, np.ones_like(target))
    assert scores.mae == pytest.approx(0.99 * target.mean())
    assert scores.wfm < 0.05


@pytest.mark.parametrize(('height', 'expected'), [(0.0, 1.0), (0.4, 1.0), (0.9, 0.0)])
def test_weighted_f_of_an_empty_truth(height, expected):
    probability = np.zeros((20, 30))
    probability[5:9, 5:9] = height
    empty = np.zeros((20, 30), bool)
    scores = structure_scores(probability, empty, ~empty)
    assert scores.wfm == expected
    assert scores.sm == pytest.approx(1 - probability.mean())


def test_ignored_pixels_leave_no_trace():
    probability, target = soft_map(np.random.default_rng(4))
    valid = np.ones_like(target)
    valid[:, :8] = False
    target &= valid
    other = probability.copy()
    other[:, :8] = 1 - other[:, :8]
    first, second = (structure_scores(item, target, valid) for item in (probability, other))
    assert (first.sm, first.wfm, first.mae) == (second.sm, second.wfm, second.mae)
    np.testing.assert_array_equal(first.em_curve, second.em_curve)
    assert first.mae == pytest.approx(np.abs(probability - target)[valid].mean())


@pytest.mark.parametrize(
    ('row', 'column'), [(351, slice(None)), (slice(None), 351), (351, 351)], ids=['row', 'column', 'corner']
)
def test_a_truth_in_the_last_row_or_column_has_an_s_measure(row, column):
    """Two or three quadrants are empty there and have no weight."""
    target = np.zeros((352, 352), bool)
    target[row, column] = True
    assert 0.9 < structure_scores(target.astype(float), target, np.ones_like(target)).sm <= 1
    wrong = structure_scores(1 - target.astype(float), target, np.ones_like(target)).sm
    assert 0 <= wrong < 0.1


def truths(height, width, rng):
    """Masks at which a measure may divide by 0: empty, full, single pixels, rows, columns, and their complements."""
    empty = np.zeros((height, width), bool)
    yield empty
    for row in (0, height // 2, height - 1, slice(None)):
        for column in (0, width // 2, width - 1, slice(None)):
            mask = empty.copy()
            mask[row, column] = True
            yield from (mask, ~mask)
    yield rng.random((height, width)) > 0.5


def maps(target, rng):
    """Probabilities at the ends of their range and in between."""
    truth = target.astype(float)
    yield from (truth, 1 - truth, 0 * truth, 0 * truth + 1, 0 * truth + 0.5, np.clip(truth, 1e-300, 1 - 1e-16))
    yield from (rng.random(target.shape), 1e-12 * rng.random(target.shape))


@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (2, 1), (1, 7), (7, 1), (2, 2), (3, 5), (20, 20), (33, 17)], ids=str)
def test_every_measure_is_finite_and_between_0_and_1(shape):
    rng = np.random.default_rng(5)
    for target in truths(*shape, rng):
        for valid in (np.ones(shape, bool), rng.random(shape) > 0.3):
            if not valid.any():
                continue
            for probability in maps(target, rng):
                scores = structure_scores(probability, target & valid, valid)
                values = np.array([scores.sm, scores.wfm, scores.mae, *scores.em_curve])
                assert np.isfinite(values).all(), (target, probability)
                assert 0 <= values.min() <= values.max() <= 1, (target, probability)


def test_a_perfect_map_has_an_e_measure_of_100():
    """This includes a frame without a polyp in which nothing is found."""
    target = np.zeros((20, 20), bool)
    for truth in (target, ~target, np.tri(20, dtype=bool)):
        found = average([score_image('a', truth, truth, truth[None].astype(float))])
        assert found['maxEm'] == 100


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value):
    probability, target = soft_map(np.random.default_rng(6))
    probability[3, 3] = value
    with pytest.raises(ValueError, match='scores that are not finite: the network overflowed'):
        score_image('a', target, target, probability[None])
