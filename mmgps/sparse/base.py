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

    def start(self, registered: bool = True) -> None:
        """Called once before the first step, with the weights in place.

        Args:
            registered: Whether ``parameters()`` of the model is to find what is trained, and whoever reduces those over
                processes, as DDP does, reduces their gradients. A client that hands :meth:`replacements` to the
                optimizer by itself says False; their gradients are then averaged in :meth:`before_step`.
        """
        ...

    def close(self) -> None:
        """Leave the network as :meth:`start` found it, with the numbers trained since."""
        ...

    def watch_weights(self) -> None:
        """Called before forward passes of the modules around the backbone."""
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
