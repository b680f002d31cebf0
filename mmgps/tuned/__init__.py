"""One object for a model under a method: tune it, train it in any loop, save, switch off, merge. Needs only torch."""

from .loading import load
from .optimizers import take_over
from .tune import METHODS, build_method, tune
from .tuned import Tuned, tuned_of

__all__ = ['METHODS', 'Tuned', 'build_method', 'load', 'take_over', 'tune', 'tuned_of']
