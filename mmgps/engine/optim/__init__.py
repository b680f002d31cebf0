"""Optimizer wrappers."""

from .selective import GPSAmpOptimWrapper, GPSOptimWrapper, SelectiveStep, hold_only_trained, watch_losses, wrappers_of

__all__ = [
    'GPSAmpOptimWrapper',
    'GPSOptimWrapper',
    'SelectiveStep',
    'hold_only_trained',
    'watch_losses',
    'wrappers_of',
]
