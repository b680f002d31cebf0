"""Optimizer wrappers, and a schedule of the learning rate."""

from .selective import GPSAmpOptimWrapper, GPSOptimWrapper, SelectiveStep, take_over, watch_losses, wrappers_of
from .warm_up_cosine import WarmUpCosineLR

__all__ = [
    'GPSAmpOptimWrapper',
    'GPSOptimWrapper',
    'SelectiveStep',
    'WarmUpCosineLR',
    'take_over',
    'watch_losses',
    'wrappers_of',
]
