"""Hooks that tune a model, and score it before and after."""

from .before_after_hook import BeforeAfterHook
from .tune_hook import GPSHook, TuneHook, find_tune_hook

__all__ = ['BeforeAfterHook', 'GPSHook', 'TuneHook', 'find_tune_hook']
