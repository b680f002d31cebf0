"""Training of single connections. Needs only torch."""

from .compact import CompactTraining
from .lean import FusedAttention, LeanOption, saved_bytes, start_options
from .masked import MaskedTraining, SparseTraining
from .recomputation import Recomputation
from .routes import Route
from .weight import WeightIndex

__all__ = [
    'CompactTraining',
    'FusedAttention',
    'LeanOption',
    'MaskedTraining',
    'Recomputation',
    'Route',
    'SparseTraining',
    'WeightIndex',
    'saved_bytes',
    'start_options',
]
