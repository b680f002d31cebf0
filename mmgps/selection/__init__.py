"""Select the connections to train: roles and neurons, scores, choices, and the gradient pass. Needs only torch."""

from .choices import ConnectionChoice, NetworkWide, PerLayer, PerNeuron, SharedColumns, top_of_network, top_per_row
from .contrastive import supervised_contrastive
from .files import SelectionFileError, load_selection, pack_selection, save_selection, unpack_selection
from .fingerprint import architecture_fingerprint, bits, weights_fingerprint
from .gradients import (
    PROBABILITIES,
    EmptyLoaderError,
    NonFiniteGradientError,
    Quantiles,
    UnreachedError,
    gradient_quantiles,
    preserved,
    sum_gradients,
)
from .neurons import NeuronLayout
from .roles import Parameter, Role, describe
from .scores import (
    Accumulation,
    GradientMoments,
    GradientScore,
    GradientSum,
    MagnitudeScore,
    RandomScore,
    Score,
    SignalToNoiseScore,
    SquaredGradientScore,
    SquaredGradientSum,
    TaylorScore,
)
from .selection import Connections, Selection, SelectionMismatchError

__all__ = [
    'PROBABILITIES',
    'Accumulation',
    'ConnectionChoice',
    'Connections',
    'EmptyLoaderError',
    'GradientMoments',
    'GradientScore',
    'GradientSum',
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
