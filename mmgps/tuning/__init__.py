"""The fine-tuning methods: which numbers are trained. Needs only torch."""

from .adapter import Adapter
from .base import (
    InjectionMethod,
    TuningMethod,
    WholeParameters,
    beside,
    check_candidates,
    check_chosen,
    check_trainable,
    freeze_unselected,
    injected_by,
    trainable,
)
from .base_weights import LoadingWatch, RandomBaseError
from .bias import BiasTuning
from .first_iteration import FirstIteration, unused_message
from .full import FullTuning
from .gps import GPS
from .injected import merge_operations, rebuild_method, unload
from .linear import LinearProbe
from .lora import LoRA
from .methods import METHODS
from .operations import neutralize_unused
from .sites import InjectionError, LayerPart
from .spt import SPTAdapter, SPTLoRA
from .ssf import SSF
from .table import Count, count_parts, count_roles, format_report
from .trained import Trained, UntrainedError, check_held, held_by, kept_elsewhere, resting, trained_tensors
from .vpt import VPTDeep, VPTShallow

__all__ = [
    'GPS',
    'METHODS',
    'SSF',
    'Adapter',
    'BiasTuning',
    'Count',
    'FirstIteration',
    'FullTuning',
    'InjectionError',
    'InjectionMethod',
    'LayerPart',
    'LinearProbe',
    'LoRA',
    'LoadingWatch',
    'RandomBaseError',
    'SPTAdapter',
    'SPTLoRA',
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
    'format_report',
    'freeze_unselected',
    'held_by',
    'injected_by',
    'kept_elsewhere',
    'merge_operations',
    'neutralize_unused',
    'rebuild_method',
    'resting',
    'trainable',
    'trained_tensors',
    'unload',
    'unused_message',
]
