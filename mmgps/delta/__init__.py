"""Deltas, the numbers that a run changed: extract, save, apply, remove, switch and merge them. Needs only torch."""

from .apply import AppliedDelta, DeltaMergeError, merge
from .bank import DeltaBank
from .base import BaseFingerprint, DeltaMismatchError, tensors_of
from .combine import DeltaUnionError, union
from .delta import Delta, DeltaExtractError, Origin, check_tensors, extract, same, verify
from .diff import Difference, diff, format_diff
from .files import DeltaFileError, load_delta, pack_delta, save_delta, unpack_delta
from .gate import DeltaInUseError
from .injecting import check_injection, inject_missing

__all__ = [
    'AppliedDelta',
    'BaseFingerprint',
    'Delta',
    'DeltaBank',
    'DeltaExtractError',
    'DeltaFileError',
    'DeltaInUseError',
    'DeltaMergeError',
    'DeltaMismatchError',
    'DeltaUnionError',
    'Difference',
    'Origin',
    'check_injection',
    'check_tensors',
    'diff',
    'extract',
    'format_diff',
    'inject_missing',
    'load_delta',
    'merge',
    'pack_delta',
    'same',
    'save_delta',
    'tensors_of',
    'union',
    'unpack_delta',
    'verify',
]
