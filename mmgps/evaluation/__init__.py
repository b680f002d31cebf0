"""Polyp metrics for mmengine's evaluator, which read mmseg's samples without importing mmseg."""

from mmgps.utils.requirements import require

require('mmengine')

from .foreground import dice_iou  # noqa: E402
from .polyp_metric import PolypMetric  # noqa: E402

__all__ = ['PolypMetric', 'dice_iou']
