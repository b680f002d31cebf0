"""Optimizer wrappers."""

from .selective import GPSAmpOptimWrapper, GPSOptimWrapper, SelectiveStep, hold_only_trained, watch_losses, wrappers_of
from .tied import check_owners

__all__ = [
    'GPSAmpOptimWrapper',
    'GPSOptimWrapper',
    'SelectiveStep',
    'check_owners',
    'hold_only_trained',
    'watch_losses',
    'wrappers_of',
]
