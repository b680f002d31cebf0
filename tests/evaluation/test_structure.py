import numpy as np
import pytest
from py_sod_metrics import MAE, Emeasure, Smeasure, WeightedFmeasure

from mmgps.evaluation.image_score import average, score_image
from mmgps.evaluation.structure import structure_scores


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
    ours, curve = average(scores), measures['Em'].get_results()['em']['curve']
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
