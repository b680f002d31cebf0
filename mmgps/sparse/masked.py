"""The protocol for training a sparse subset of weights, and masked training: the slow, obvious way and the oracle."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmgps.selection import Selection


class SparseTraining(Protocol):
    """Trains the chosen connections of a backbone and nothing else of their weights."""

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        """Maps weights of the optimizer to the parameters that replace them there."""
        ...

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Make sure that ``optimizer``, on the replacements, takes the steps that it would take on the weights.

        Raises:
            ValueError: If it is not known to do so.
        """
        ...

    def start(self) -> None:
        """Prepare training; called once before the first step, with the weights in place."""
        ...

    def before_step(self) -> None:
        """Prepare complete gradients, before they are unscaled or clipped."""
        ...

    def after_step(self) -> None:
        """Carry the result of an optimizer step into the weights."""
        ...

    def report(self) -> str:
        """The text about sparse training in the table at the start of training."""
        ...


class MaskedTraining:
    """Dense gradients whose unchosen entries are set to zero, and frozen numbers that are put back after each step.

    Zero gradients alone freeze nothing: AdamW with weight decay moves every number, and so does momentum that was
    gathered before. Putting the originals back keeps them bit-identical under any optimizer, at the price of a copy.

    Args:
        backbone: The network that ``selection`` was made for.
        selection: What is trained.

    Raises:
        SelectionMismatchError: If it was made for another network.
    """

    def __init__(self, backbone: nn.Module, selection: Selection) -> None:
        self._frozen: list[tuple[nn.Parameter, Tensor]] = [
            (parameter.value, ~connections.mask(parameter.neurons).to(parameter.value.device))
            for parameter, connections in selection.resolve(backbone)
        ]
        self._originals: list[Tensor] | None = None

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        return {}

    def check_optimizer(self, optimizer: Optimizer) -> None:
        return None

    @torch.no_grad()
    def start(self) -> None:
        self._originals = [weight.detach().clone() for weight, _ in self._frozen]

    @torch.no_grad()
    def before_step(self) -> None:
        for weight, frozen in self._frozen:
            if weight.grad is not None:
                weight.grad.masked_fill_(frozen, 0)

    @torch.no_grad()
    def after_step(self) -> None:
        assert self._originals is not None, 'start() comes before the first step'
        for (weight, frozen), original in zip(self._frozen, self._originals, strict=True):
            weight.copy_(torch.where(frozen, original, weight))

    def report(self) -> str:
        return 'masked training: dense gradients and optimizer states, as in full fine-tuning' if self._frozen else ''
