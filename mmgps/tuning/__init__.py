"""The fine-tuning methods: which numbers move. Needs only torch."""

from .adapter import Adapter
from .base import TuningMethod, WholeParameters, trainable
from .bias import BiasTuning
from .ejecting import eject
from .freeze import check_trainable, freeze_unselected
from .full import FullTuning
from .gps import GPS
from .injection import InjectionMethod, injected_by
from .linear import LinearProbe
from .lora import LoRA
from .merging import merge_operations
from .parts import Part
from .rebuild import rebuild_method
from .report import Count, count_parts, count_roles, format_report
from .sites import InjectionError
from .spt import SPTAdapter, SPTLoRA
from .ssf import SSF
from .structure import Structure, roll_back
from .vpt import VPTDeep, VPTShallow

__all__ = [
    'GPS',
    'SSF',
    'Adapter',
    'BiasTuning',
    'Count',
    'FullTuning',
    'InjectionError',
    'InjectionMethod',
    'LinearProbe',
    'LoRA',
    'Part',
    'SPTAdapter',
    'SPTLoRA',
    'Structure',
    'TuningMethod',
    'VPTDeep',
    'VPTShallow',
    'WholeParameters',
    'check_trainable',
    'count_parts',
    'count_roles',
    'eject',
    'format_report',
    'freeze_unselected',
    'injected_by',
    'merge_operations',
    'rebuild_method',
    'roll_back',
    'trainable',
]
