"""Optimizer wrappers, and a schedule of the learning rate."""

from .selective import GPSAmpOptimWrapper, GPSOptimWrapper, SelectiveStep, hold_only_trained, watch_losses, wrappers_of
from .warm_up_cosine import WarmUpCosineLR

__all__ = [
    'GPSAmpOptimWrapper',
    'GPSOptimWrapper',
    'SelectiveStep',
    'WarmUpCosineLR',
    'hold_only_trained',
    'watch_losses',
    'wrappers_of',
]
