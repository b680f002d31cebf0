"""Training of single connections. Needs only torch."""

from .compact import CompactTraining
from .install import ChosenConnections, registered_in, unregister
from .lean import FusedAttention, LeanOption, saved_bytes, start_options
from .masked import MaskedTraining, SparseTraining
from .optimizers import StepWatcher, UnstartedError, guard, lift, unwatch_steps, watch_steps
from .recomputation import Recomputation
from .routes import Route
from .weight import WeightIndex

__all__ = [
    'ChosenConnections',
    'CompactTraining',
    'FusedAttention',
    'LeanOption',
    'MaskedTraining',
    'Recomputation',
    'Route',
    'SparseTraining',
    'StepWatcher',
    'UnstartedError',
    'WeightIndex',
    'guard',
    'lift',
    'registered_in',
    'saved_bytes',
    'start_options',
    'unregister',
    'unwatch_steps',
    'watch_steps',
]
