"""The fine-tuning methods: which numbers move. Needs only torch."""

from .base import TuningMethod, WholeParameters, trainable
from .bias import BiasTuning
from .freeze import freeze_unselected
from .full import FullTuning
from .gps import GPS
from .linear import LinearProbe
from .report import Count, count_parts, count_roles, format_report

__all__ = [
    'GPS',
    'BiasTuning',
    'Count',
    'FullTuning',
    'LinearProbe',
    'TuningMethod',
    'WholeParameters',
    'count_parts',
    'count_roles',
    'format_report',
    'freeze_unselected',
    'trainable',
]
