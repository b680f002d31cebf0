"""One object for a model under a method: tune it, train it in any loop, save, switch off, merge. Needs only torch."""

from .loading import load
from .optimizers import take_over
from .tune import build_method, method_for, tune
from .tuned import TrainingFactory, Tuned, tuned_of

__all__ = ['TrainingFactory', 'Tuned', 'build_method', 'load', 'method_for', 'take_over', 'tune', 'tuned_of']
