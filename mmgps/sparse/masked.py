"""The protocol for training a sparse subset of weights, and masked training: the slow, obvious way and the oracle."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from mmgps.selection import Selection

from .optimizer_steps import lift


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

    def start(self, registered: bool = True) -> None:
        """Prepare training; called once before the first step, with the weights in place.

        Args:
            registered: Make ``parameters()`` of the model find what is trained, so that frameworks train it and DDP
                reduces its gradients. A client that gives :meth:`replacements` to the optimizer itself passes False;
                their gradients are then averaged over processes in :meth:`before_step`.
        """
        ...

    def close(self) -> None:
        """Restore the network as :meth:`start` found it, with the numbers trained since."""
        ...

    def watch_weights(self) -> None:
        """Prepare a forward pass of a module around the backbone."""
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

    Gradients are masked as they arrive, so that clipping and the search for overflows see what is trained. Zero
    gradients alone freeze nothing: AdamW with weight decay moves every number, and so does momentum that was gathered
    before. Putting the originals back keeps them bit-identical under any optimizer, at the price of a copy.

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
        self._handles: list[RemovableHandle] = []

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        return {}

    def check_optimizer(self, optimizer: Optimizer) -> None:
        return None

    def start(self, registered: bool = True) -> None:
        self.close()
        lift(weight for weight, _ in self._frozen)
        self._originals = [weight.detach().clone() for weight, _ in self._frozen]
        self._handles = [
            weight.register_post_accumulate_grad_hook(partial(_mask, frozen))  # type: ignore[no-untyped-call]
            for weight, frozen in self._frozen
        ]

    def watch_weights(self) -> None:
        return None

    def before_step(self) -> None:
        for weight, frozen in self._frozen:
            _mask(frozen, weight)

    @torch.no_grad()
    def after_step(self) -> None:
        assert self._originals is not None, 'start() comes before the first step'
        for (weight, frozen), original in zip(self._frozen, self._originals, strict=True):
            weight.copy_(torch.where(frozen, original, weight))

    def report(self) -> str:
        return 'masked training: dense gradients and optimizer states, as in full fine-tuning' if self._frozen else ''

    def close(self) -> None:
        """Mask no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


@torch.no_grad()
def _mask(frozen: Tensor, weight: Tensor) -> None:
    if weight.grad is not None:
        weight.grad.masked_fill_(frozen, 0)
