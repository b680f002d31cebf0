"""Hooks: they decide when."""

from .before_after_hook import BeforeAfterHook
from .delta_hook import DeltaHook
from .exact_resume_hook import ExactResumeHook
from .gps_hook import GPSHook
from .tune_hook import TuneHook, find_tune_hook

__all__ = ['BeforeAfterHook', 'DeltaHook', 'ExactResumeHook', 'GPSHook', 'TuneHook', 'find_tune_hook']
