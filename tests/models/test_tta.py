"""Merged views have mmseg's labels and the map that the labels come from."""

import copy

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.structures import PixelData
from mmseg.models import SegTTAModel as OfMMSeg
from mmseg.structures import SegDataSample
from torch import nn

from mmgps.evaluation import PolypMetric
from mmgps.models import SegTTAModel

SIZE = (12, 16)


class Model(nn.Module):
    """The parts of a segmentor that both classes use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels, self.decode_head = channels, nn.Module()
        self.decode_head.threshold = 0.3

    def test_step(self, data):
        raise NotImplementedError


def view(scores: torch.Tensor) -> SegDataSample:
    made = SegDataSample(metainfo=dict(img_path='a.jpg', ori_shape=SIZE))
    made.seg_logits = PixelData(data=scores)
    made.pred_sem_seg = PixelData(data=scores.argmax(0, keepdim=True))
    made.gt_sem_seg = PixelData(data=(torch.rand(1, *SIZE) > 0.6).long())
    return made


def test_labels_are_those_of_mmseg_and_the_map_is_the_mean() -> None:
    views = [view(3 * torch.randn(2, *SIZE)) for _ in range(3)]
    expected = torch.stack([one.seg_logits.data.softmax(0) for one in views]).mean(0)
    [theirs] = OfMMSeg(Model(2)).merge_preds([copy.deepcopy(views)])
    [merged] = SegTTAModel(Model(2)).merge_preds([copy.deepcopy(views)])
    assert torch.equal(merged.pred_sem_seg.data, theirs.pred_sem_seg.data.reshape(1, *SIZE))
    torch.testing.assert_close(merged.seg_logits.data.softmax(0), expected)
    assert torch.equal(merged.gt_sem_seg.data, views[0].gt_sem_seg.data)


def test_a_head_of_one_channel_has_probabilities_already() -> None:
    views = [view(torch.rand(1, *SIZE)) for _ in range(3)]
    mean = torch.stack([one.seg_logits.data for one in views]).mean(0)
    [merged] = SegTTAModel(Model(1)).merge_preds([views])
    torch.testing.assert_close(merged.seg_logits.data, mean)
    assert torch.equal(merged.pred_sem_seg.data == 1, mean > 0.3)


def test_the_polyp_metric_takes_the_merged_map_and_refuses_that_of_the_last_view() -> None:
    views = [view(3 * torch.randn(2, *SIZE)) for _ in range(3)]
    metric = PolypMetric()
    [merged] = SegTTAModel(Model(2)).merge_preds([copy.deepcopy(views)])
    metric.process(None, [merged.to_dict()])
    found = metric.compute_metrics(metric.results)
    truth, probability = merged.gt_sem_seg.data[0], merged.seg_logits.data.softmax(0)[1]
    assert found['MAE'] == pytest.approx(100 * float((probability - truth).abs().mean()), abs=1e-3)
    [theirs] = OfMMSeg(Model(2)).merge_preds([copy.deepcopy(views)])
    with pytest.raises(ValueError, match=r"use tta_model=dict\(type='mmgps.SegTTAModel'\)"):
        metric.process(None, [theirs.to_dict()])
