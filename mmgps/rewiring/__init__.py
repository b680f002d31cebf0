"""Replace the forward of single modules, add modules, and undo these changes. Needs only torch."""

from .forward import Call, OwnForward, computes_natively, no_hook, runs_forward_of
from .structure import Injected, Structure, base_parameters, drop_compiled, roll_back
from .types import CONVOLUTIONS, HEADS, NORMS, TRANSPOSED, type_name, type_names

__all__ = [
    'CONVOLUTIONS',
    'HEADS',
    'NORMS',
    'TRANSPOSED',
    'Call',
    'Injected',
    'OwnForward',
    'Structure',
    'base_parameters',
    'computes_natively',
    'drop_compiled',
    'no_hook',
    'roll_back',
    'runs_forward_of',
    'type_name',
    'type_names',
]
