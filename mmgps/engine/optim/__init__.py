"""Optimizer wrappers, and a schedule of the learning rate."""

from .selective import GPSAmpOptimWrapper, GPSOptimWrapper, SelectiveStep, hold_only_trained, wrappers_of
from .tied import check_owners
from .warm_up_cosine import WarmUpCosineLR

__all__ = [
    'GPSAmpOptimWrapper',
    'GPSOptimWrapper',
    'SelectiveStep',
    'WarmUpCosineLR',
    'check_owners',
    'hold_only_trained',
    'wrappers_of',
]
