import csv
import pickle

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from mmgps.evaluation import PolypMetric
from mmgps.registry import METRICS

CLASSES = {'classes': ('background', 'polyp')}


def sample(truth, labels, scores=None, name='a.jpg', **meta):
    truth, labels = torch.as_tensor(np.asarray(truth)), torch.as_tensor(np.asarray(labels))
    made = SegDataSample(metainfo=dict(img_path=f'images/{name}', seg_map_path=f'masks/{name}', **meta))
    made.gt_sem_seg = PixelData(data=truth[None].long())
    made.pred_sem_seg = PixelData(data=labels[None])
    if scores is not None:
        made.seg_logits = PixelData(data=torch.as_tensor(scores))
    return made


def evaluate(samples, *metrics):
    evaluator = Evaluator([*metrics])
    evaluator.dataset_meta = CLASSES
    for start in range(0, len(samples), 2):
        evaluator.process(samples[start : start + 2])
    return evaluator.evaluate(len(samples))


def blob(height=20, width=30, side=10):
    truth = np.zeros((height, width), int)
    truth[5 : 5 + side, 5 : 5 + side] = 1
    return truth


def test_builds_by_its_name_in_any_scope():
    assert isinstance(METRICS.build({'type': 'mmgps.PolypMetric'}), PolypMetric)


def test_every_image_weighs_the_same():
    large, small = np.ones((40, 40), int), blob(20, 30, 4)
    found = evaluate([sample(large, large), sample(small, np.zeros_like(small))], PolypMetric(structure=False))
    assert found == {'Dice': 50.0, 'IoU': 50.0}


def test_all_foreground_scores_the_polyps_share_and_not_everything():
    truth = blob(20, 30, 6)
    found = evaluate([sample(truth, np.ones_like(truth))], PolypMetric(structure=False))
    assert found['IoU'] == pytest.approx(100 * 36 / 600)
    assert found['Dice'] == pytest.approx(100 * 72 / 636, abs=1e-4)


def test_stands_beside_mmsegs_metric():
    truth = blob()
    labels = np.roll(truth, 3, axis=1)
    found = evaluate(
        [sample(truth, labels), sample(labels, truth)], PolypMetric(), IoUMetric(iou_metrics=['mDice', 'mIoU'])
    )
    assert {'Dice', 'IoU', 'Sm', 'wFm', 'meanEm', 'maxEm', 'MAE', 'mDice', 'mIoU', 'aAcc'} <= set(found)
    background = 2 * (600 - 130) / (2 * (600 - 100))
    assert found['Dice'] == pytest.approx(70.0)
    assert found['mDice'] == pytest.approx(100 * (0.7 + background) / 2, abs=0.006)


def test_both_kinds_of_head():
    rng = np.random.default_rng(0)
    truth, logit = blob(), rng.normal(size=(20, 30)).astype(np.float32) * 2
    probability = 1 / (1 + np.exp(-logit))
    softmax = sample(truth, logit > 0, np.stack([-logit / 2, logit / 2]))
    sigmoid = sample(truth, (probability > 0.5).astype(np.float32), probability[None])
    first, second = evaluate([softmax], PolypMetric()), evaluate([sigmoid], PolypMetric())
    assert first.keys() == second.keys()
    for key in first:
        assert first[key] == pytest.approx(second[key], abs=0.01), key
    low = sample(truth, (probability > 0.3).astype(np.float32), probability[None])
    assert evaluate([low], PolypMetric())['MAE'] == second['MAE']
    assert evaluate([low], PolypMetric())['Dice'] != second['Dice']


def test_scores_of_half_precision():
    truth = blob()
    scores = torch.stack([torch.zeros(20, 30), torch.as_tensor(truth) * 8.0 - 4]).to(torch.bfloat16)
    assert evaluate([sample(truth, truth, scores)], PolypMetric())['Dice'] == 100


def test_ignored_pixels_do_not_count():
    truth, labels = blob(), blob()
    truth[:, 20:], labels[:, 20:] = 255, 1
    assert evaluate([sample(truth, labels)], PolypMetric(structure=False)) == {'Dice': 100.0, 'IoU': 100.0}


def test_empty_masks():
    empty, full = np.zeros((6, 7), int), np.ones((6, 7), int)
    cases = {(0, 0): 100.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 100.0}
    for (true, predicted), expected in cases.items():
        found = evaluate([sample((empty, full)[true], (empty, full)[predicted])], PolypMetric(structure=False))
        assert found == {'Dice': expected, 'IoU': expected}


@pytest.mark.parametrize(
    ('truth', 'labels', 'message'),
    [
        ([[0, 128, 1]], [[0, 0, 1]], r'images/a\.jpg with mask masks/a\.jpg: the truth holds 128'),
        ([[0, 1, 1]], [[0, 3, 1]], r'images/a\.jpg with mask masks/a\.jpg: the prediction holds 3'),
        ([[0, 1, 1]], [[0, 1], [0, 1]], r'prediction has 2x2 and the truth 1x3 pixels.*LoadAnnotations.*after Resize'),
    ],
)
def test_samples_without_a_score_are_named(truth, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate([sample(truth, labels)], PolypMetric())


def test_a_truth_that_was_resized_is_refused():
    with pytest.raises(ValueError, match=r'truth is \(20, 30\) and the image was \(40, 60\)'):
        evaluate([sample(blob(), blob(), ori_shape=(40, 60))], PolypMetric())


def test_a_sample_without_truth_is_refused():
    bare = sample(blob(), blob())
    del bare.gt_sem_seg
    with pytest.raises(ValueError, match=r'a\.jpg.*no gt_sem_seg.*LoadAnnotations'):
        evaluate([bare], PolypMetric())


def test_scores_of_another_view_are_refused():
    scores = np.stack([np.zeros((20, 30)), np.fliplr(blob()) * 2.0 - 1])
    with pytest.raises(ValueError, match='structure=False'):
        evaluate([sample(blob(), blob(), scores)], PolypMetric())
    assert evaluate([sample(blob(), blob(), scores)], PolypMetric(structure=False))['Dice'] == 100


def test_masks_of_0_and_255_do_not_pass_as_ignored():
    raw = blob() * 255
    with pytest.raises(ValueError, match=r'none of 2 images has a foreground pixel.*255 where 1 is expected'):
        evaluate([sample(raw, blob()), sample(raw, blob())], PolypMetric(structure=False))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [({'per_image_file': 'scores.json'}, r'scores\.json'), ({'ignore_index': 0}, 'would drop a class')],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        PolypMetric(**arguments)


def test_scores_of_every_image_in_a_table(tmp_path):
    path = tmp_path / 'new' / 'scores.csv'
    samples = [sample(blob(), blob(), name='a.jpg'), sample(blob(), np.roll(blob(), 5, 0), name='b.jpg')]
    for structure in (True, False):
        found = evaluate(samples, PolypMetric(structure=structure, per_image_file=str(path)))
        rows = list(csv.DictReader(path.open()))
        assert [row['image'] for row in rows] == ['images/a.jpg', 'images/b.jpg']
        assert [float(row['Dice']) for row in rows] == [100.0, 50.0]
        assert float(rows[0]['foreground']) == pytest.approx(100 / 6, abs=1e-4)
        for key in {*rows[0]} - {'image', 'foreground'}:
            assert np.mean([float(row[key]) for row in rows]) == pytest.approx(found[key], abs=1e-4), key
        assert ('Sm' in rows[0]) == structure
    assert [entry.name for entry in path.parent.iterdir()] == ['scores.csv']


def test_ranks_exchange_small_scores():
    metric = PolypMetric()
    truth = blob(400, 500, 90)
    metric.process(None, [sample(truth, truth, np.stack([-truth, truth]) * 1.0).to_dict()])
    assert len(pickle.dumps(metric.results)) < 4000


def test_a_prefix_tells_sets_apart():
    assert set(evaluate([sample(blob(), blob())], PolypMetric(structure=False, prefix='etis'))) == {
        'etis/Dice',
        'etis/IoU',
    }


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match='no image was scored'):
        evaluate([], PolypMetric())
