"""Test-time augmentation that keeps the averaged probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmgps.registry import MODELS


@MODELS.register_module()
class SegTTAModel(BaseTTAModel):
    """Average the probabilities of all views of an image, like mmseg's ``SegTTAModel``, and keep the average.

    mmseg's class leaves the scores of the last view beside labels that come from all views. Here ``seg_logits`` belong
    to the average. For a head with several channels they are its logarithm, so their softmax is the average. For a head
    with one channel they are the average itself, because mmseg stores probabilities there; mmseg's class wrongly takes
    their sigmoid once more.

    The result is the sample of the first view with its truth, so the first view should be the plain one.
    """

    def merge_preds(self, data_samples_list: Sequence[Sequence[SegDataSample]]) -> list[SegDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list: For each image its predictions, view by view, at the original size and orientation.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: Sequence[SegDataSample]) -> SegDataSample:
        mean = torch.stack([_probabilities(view.seg_logits.data) for view in views]).mean(0)
        several = len(mean) > 1
        labels = mean.argmax(0, keepdim=True) if several else (mean > self.module.decode_head.threshold).to(mean)
        merged = views[0]
        scores = mean.clamp_min(torch.finfo(mean.dtype).tiny).log() if several else mean
        merged.set_data(dict(seg_logits=PixelData(data=scores), pred_sem_seg=PixelData(data=labels)))
        return merged


def _probabilities(scores: Tensor) -> Tensor:
    """Convert ``seg_logits [channels, H, W]`` to probabilities in at least 32 bits: half precision loses faint ones."""
    scores = scores.float() if scores.dtype.itemsize < 4 else scores
    return scores.softmax(0) if len(scores) > 1 else scores
