"""Training of single connections. Needs only torch."""

from .base import SparseTraining
from .masked import MaskedTraining

__all__ = ['MaskedTraining', 'SparseTraining']
