"""Training of single connections. Needs only torch."""

from .accounting import saved_bytes
from .base import SparseTraining
from .compact import CompactTraining
from .masked import MaskedTraining
from .places import Places
from .routes import Route

__all__ = ['CompactTraining', 'MaskedTraining', 'Places', 'Route', 'SparseTraining', 'saved_bytes']
