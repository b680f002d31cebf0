"""How the moving of single connections is paid for."""

from __future__ import annotations

from typing import Protocol

from torch import nn
from torch.optim import Optimizer


class SparseTraining(Protocol):
    """Trains the chosen connections of a backbone and nothing else of their weights."""

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        """Weights that the optimizer holds, and the parameters that it shall hold in their place."""
        ...

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Make sure that ``optimizer``, which holds the replacements, trains as it would train the weights.

        Raises:
            ValueError: If that is not known of it.
        """
        ...

    def start(self) -> None:
        """Called once before the first step, with the weights in place."""
        ...

    def before_step(self) -> None:
        """Called when gradients are complete, before they are unscaled or clipped."""
        ...

    def after_step(self) -> None:
        """Called after the optimizer changed the parameters that it holds."""
        ...

    def report(self) -> str:
        """What the table at the start of training says of it."""
        ...
