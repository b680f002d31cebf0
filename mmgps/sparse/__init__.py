"""Training of single connections. Needs only torch."""

from .accounting import saved_bytes
from .base import SparseTraining
from .compact import CompactTraining
from .lean import FusedAttention, LeanOption, start_options
from .masked import MaskedTraining
from .places import Places
from .recomputation import Recomputation
from .routes import Route

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
