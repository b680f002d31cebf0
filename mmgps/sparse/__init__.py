"""Training of single connections. Needs only torch."""

from .accounting import saved_bytes
from .base import SparseTraining
from .compact import CompactTraining
from .lean import FusedAttention, LeanOption, start_options
from .masked import MaskedTraining
from .optimizer_steps import StepWatcher, UnstartedError, guard, lift, unwatch_steps, watch_steps
from .places import Places
from .recomputation import Recomputation
from .registered import ChosenConnections, registered_in, unregister
from .routes import Route

__all__ = [
    'ChosenConnections',
    'CompactTraining',
    'FusedAttention',
    'LeanOption',
    'MaskedTraining',
    'Places',
    'Recomputation',
    'Route',
    'SparseTraining',
    'StepWatcher',
    'UnstartedError',
    'guard',
    'lift',
    'registered_in',
    'saved_bytes',
    'start_options',
    'unregister',
    'unwatch_steps',
    'watch_steps',
]
