"""The fine-tuning methods: which numbers move. Needs only torch."""

from .adapter import Adapter
from .base import TuningMethod, WholeParameters, check_candidates, check_chosen, trainable
from .base_weights import LoadingWatch, RandomBaseError
from .bias import BiasTuning
from .ejecting import eject
from .first_iteration import FirstIteration
from .freeze import check_trainable, freeze_unselected
from .full import FullTuning
from .gps import GPS
from .injection import InjectionMethod, beside, injected_by
from .linear import LinearProbe
from .lora import LoRA
from .merging import merge_operations
from .operations import neutralize_unused
from .parts import Part
from .rebuild import rebuild_method
from .report import Count, count_parts, count_roles, format_report
from .sites import InjectionError
from .spt import SPTAdapter, SPTLoRA
from .ssf import SSF
from .structure import Structure, roll_back
from .trained import Trained, UntrainedError, check_held, held_by, kept_elsewhere, listed, resting, trained_tensors
from .vpt import VPTDeep, VPTShallow

__all__ = [
    'GPS',
    'SSF',
    'Adapter',
    'BiasTuning',
    'Count',
    'FirstIteration',
    'FullTuning',
    'InjectionError',
    'InjectionMethod',
    'LinearProbe',
    'LoRA',
    'LoadingWatch',
    'Part',
    'RandomBaseError',
    'SPTAdapter',
    'SPTLoRA',
    'Structure',
    'Trained',
    'TuningMethod',
    'UntrainedError',
    'VPTDeep',
    'VPTShallow',
    'WholeParameters',
    'beside',
    'check_candidates',
    'check_chosen',
    'check_held',
    'check_trainable',
    'count_parts',
    'count_roles',
    'eject',
    'format_report',
    'freeze_unselected',
    'held_by',
    'injected_by',
    'kept_elsewhere',
    'listed',
    'merge_operations',
    'neutralize_unused',
    'rebuild_method',
    'resting',
    'roll_back',
    'trainable',
    'trained_tensors',
]
