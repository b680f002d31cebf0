"""Which connections to train: neurons, scores, choices, and the pass that gives the gradients. Needs only torch."""

from .accumulate import Accumulation, GradientMoments, GradientSum, SquaredGradientSum
from .choices import Choice, NetworkWide, PerLayer, PerNeuron, SharedColumns, top_of_network
from .contrastive import supervised_contrastive
from .files import SelectionFileError, load_selection, pack_selection, save_selection, unpack_selection
from .fingerprint import architecture_fingerprint, bits, weights_fingerprint
from .gradients import EmptyLoaderError, NonFiniteGradientError, UnreachedError, sum_gradients
from .injected import Injected, base_parameters
from .layout import NeuronLayout
from .preserve import preserved
from .quantiles import PROBABILITIES, Quantiles, gradient_quantiles
from .roles import Parameter, Role, describe
from .scores import (
    GradientScore,
    MagnitudeScore,
    RandomScore,
    Score,
    SignalToNoiseScore,
    SquaredGradientScore,
    TaylorScore,
)
from .selection import Connections, Selection, SelectionMismatchError
from .top import top_per_row

__all__ = [
    'PROBABILITIES',
    'Accumulation',
    'Choice',
    'Connections',
    'EmptyLoaderError',
    'GradientMoments',
    'GradientScore',
    'GradientSum',
    'Injected',
    'MagnitudeScore',
    'NetworkWide',
    'NeuronLayout',
    'NonFiniteGradientError',
    'Parameter',
    'PerLayer',
    'PerNeuron',
    'Quantiles',
    'RandomScore',
    'Role',
    'Score',
    'Selection',
    'SelectionFileError',
    'SelectionMismatchError',
    'SharedColumns',
    'SignalToNoiseScore',
    'SquaredGradientScore',
    'SquaredGradientSum',
    'TaylorScore',
    'UnreachedError',
    'architecture_fingerprint',
    'base_parameters',
    'bits',
    'describe',
    'gradient_quantiles',
    'load_selection',
    'pack_selection',
    'preserved',
    'save_selection',
    'sum_gradients',
    'supervised_contrastive',
    'top_of_network',
    'top_per_row',
    'unpack_selection',
    'weights_fingerprint',
]
