"""The head as a head of mmseg: losses, prediction, test-time augmentation, sliding windows, metrics."""

import copy

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample
from tiny_sam import build_sam

from mmgps.evaluation import PolypMetric

SHAPE = (48, 80)
SLIDE = dict(mode='slide', crop_size=(32, 32), stride=(16, 16))


def sample(**meta) -> SegDataSample:
    """Return the sample that mmseg makes for an image of 48 x 80 that was resized to 64 x 64."""
    made = SegDataSample(
        metainfo=dict(ori_shape=SHAPE, img_shape=(64, 64), pad_shape=(64, 64), img_path='a.jpg', **meta)
    )
    made.gt_sem_seg = PixelData(data=torch.zeros(1, *SHAPE, dtype=torch.long))
    made.gt_sem_seg.data[:, 10:30, 20:60] = 1
    return made


@pytest.mark.parametrize('test_cfg', [dict(mode='whole'), SLIDE], ids=['whole', 'slide'])
def test_labels_are_where_the_logit_is_positive(test_cfg) -> None:
    model = build_sam(test_cfg=test_cfg).eval()
    with torch.no_grad():
        model.decode_head.mask_decoder.iou_token.weight.normal_(std=3)
        [found] = model.predict(torch.randn(1, 3, 64, 64), [sample()])
    logits, labels = found.seg_logits.data, found.pred_sem_seg.data
    assert logits.shape == (2, *SHAPE)
    assert labels.shape == (1, *SHAPE)
    assert logits[1].abs().max() > 0
    assert not logits[0].any()
    assert torch.equal(labels[0] == 1, logits[1] > 0)


def test_augmentation_averages_the_views() -> None:
    """With a head of one channel it would not, because mmseg then takes the sigmoid twice."""
    model = build_sam().eval()
    tta = SegTTAModel(model)
    images = torch.randn(1, 3, 64, 64)
    views = [images, images.flip(3)]
    samples = [sample(flip=False), sample(flip=True, flip_direction='horizontal')]
    with torch.no_grad():
        apart = [model.predict(x, [copy.deepcopy(s)])[0] for x, s in zip(views, samples, strict=True)]
        [merged] = tta.merge_preds([[copy.deepcopy(one) for one in apart]])
    mean = sum(one.seg_logits.data[1].sigmoid() for one in apart) / 2
    clear = (mean - 0.5).abs() > 1e-6
    assert torch.equal((merged.pred_sem_seg.data.reshape(SHAPE) == 1)[clear], (mean > 0.5)[clear])
    assert clear.float().mean() > 0.9
    shares = [float(one.pred_sem_seg.data.float().mean()) for one in apart]
    assert 0 < float(merged.pred_sem_seg.data.float().mean()) < 1, shares


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (dict(num_classes=19), 'num_classes=2, got num_classes=19; leave it out'),
        (dict(out_channels=1), 'out_channels=2, got out_channels=1'),
        (dict(dropout_ratio=0.1), 'dropout_ratio=0, got dropout_ratio=0.1'),
        (dict(channels=64), 'channels=256, got channels=64'),
        (dict(init_cfg=dict(type='Normal', layer='Linear')), r'init_cfg=None, got .*Normal'),
    ],
)
def test_options_that_sam_fixes_are_not_silently_overridden(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_sam(decode_head=dict(type='mmgps.SAMMaskHead', **option))


def test_the_fixed_value_may_be_given() -> None:
    assert build_sam(decode_head=dict(type='mmgps.SAMMaskHead', num_classes=2)).decode_head.num_classes == 2


def test_the_polyp_metric_reads_labels_and_probabilities() -> None:
    model = build_sam().eval()
    metric = PolypMetric()
    with torch.no_grad():
        model.decode_head.mask_decoder.iou_token.weight.normal_(std=3)
        [found] = model.predict(torch.randn(1, 3, 64, 64), [sample()])
    metric.process(None, [found.to_dict()])
    scores = metric.compute_metrics(metric.results)
    predicted, truth = found.pred_sem_seg.data[0] == 1, found.gt_sem_seg.data[0] == 1
    error = (found.seg_logits.data[1].double().sigmoid() - truth.double()).abs().mean()
    both = (predicted & truth).sum()
    assert 0 < both < predicted.sum()
    assert scores['Dice'] == pytest.approx(200 * float(both / (predicted.sum() + truth.sum())), abs=1e-4)
    assert scores['MAE'] == pytest.approx(100 * float(error), abs=1e-4)


def test_a_step_of_training() -> None:
    """Each loss has its name; the prompt encoder and the masks for ambiguous prompts get no gradient."""
    model = build_sam()
    made = SegDataSample()
    made.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, 64, 64)))
    losses = model.loss(torch.randn(1, 3, 64, 64), [made])
    assert losses.keys() == {'decode.loss_ce', 'decode.loss_iou', 'decode.acc_seg'}
    (losses['decode.loss_ce'] + losses['decode.loss_iou']).backward()
    without = {
        name.split('.')[2] for name, value in model.decode_head.named_parameters(prefix='x') if value.grad is None
    }
    reached = [name for name, value in model.backbone.named_parameters() if value.grad is not None]
    assert len(reached) == len(list(model.backbone.parameters()))
    frozen = {name for name, value in model.decode_head.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, _ in model.decode_head.named_parameters() if name.startswith('prompt_encoder.')}
    assert {'iou_prediction_head', 'output_hypernetworks_mlps'} <= without
    assert 'transformer' not in without


def test_cross_entropy_is_the_binary_one_of_the_logit() -> None:
    model = build_sam()
    features = (torch.randn(1, 256, 4, 4),)
    made = SegDataSample()
    made.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, 16, 16)))
    found = model.decode_head.loss(features, [made], {})['loss_ce']
    logit = model.decode_head(features)[:, 1]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, made.gt_sem_seg.data.float())
    torch.testing.assert_close(found, expected)
