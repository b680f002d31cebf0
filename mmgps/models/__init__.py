"""Models and losses for mmseg, among them SAM."""

from mmgps.utils.requirements import require

require('mmseg')

from .losses import ForegroundDiceLoss, ForegroundIoULoss  # noqa: E402
from .sam import SAMImageEncoder, SAMMaskHead, SAMPretrained, SAMWeights  # noqa: E402
from .tta import SegTTAModel  # noqa: E402

__all__ = [
    'ForegroundDiceLoss',
    'ForegroundIoULoss',
    'SAMImageEncoder',
    'SAMMaskHead',
    'SAMPretrained',
    'SAMWeights',
    'SegTTAModel',
]
