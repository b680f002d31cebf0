"""Polyp metrics for mmengine's evaluator. They read mmseg's samples, but import nothing of mmseg."""

from mmgps.utils.requirements import require

require('mmengine')

from mmgps.evaluation.foreground import dice_iou  # noqa: E402
from mmgps.evaluation.polyp_metric import PolypMetric  # noqa: E402

__all__ = ['PolypMetric', 'dice_iou']
