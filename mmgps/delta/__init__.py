"""What a run changed, in a small file: extract, apply, take off, switch, merge. Needs only torch."""

from .apply import AppliedDelta
from .bank import DeltaBank
from .base import Base, DeltaMismatchError
from .combine import DeltaUnionError, union
from .delta import Delta, Origin, same
from .diff import Difference, diff, format_diff
from .extract import DeltaExtractError, extract
from .files import DeltaFileError, load_delta, pack_delta, save_delta, unpack_delta
from .fit import check_tensors, verify
from .gate import DeltaInUseError
from .grow import check_growth, grow
from .merge import DeltaMergeError, merge
from .tensors import tensors_of

__all__ = [
    'AppliedDelta',
    'Base',
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
    'check_growth',
    'check_tensors',
    'diff',
    'extract',
    'format_diff',
    'grow',
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
