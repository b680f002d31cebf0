"""Optimizer wrappers."""

from .selective import GPSAmpOptimWrapper, GPSOptimWrapper, SelectiveStep, hold_only_trained, wrappers_of

__all__ = [
    'GPSAmpOptimWrapper',
    'GPSOptimWrapper',
    'SelectiveStep',
    'hold_only_trained',
    'wrappers_of',
]
