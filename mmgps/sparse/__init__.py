"""Training of single connections. Needs only torch."""

from .compact import CompactTraining
from .lean import FusedAttention, LeanOption, saved_bytes, start_options
from .masked import MaskedTraining, SparseTraining
from .recomputation import Recomputation
from .routes import Route
from .weight import Places

__all__ = [
    'CompactTraining',
    'FusedAttention',
    'LeanOption',
    'MaskedTraining',
    'Places',
    'Recomputation',
    'Route',
    'SparseTraining',
    'saved_bytes',
    'start_options',
]
