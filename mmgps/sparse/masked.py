"""The protocol for training a sparse subset of weights, and masked training, the slow and obvious way."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from mmgps.selection import Selection

from .optimizers import lift


class SparseTraining(Protocol):
    """Trains the chosen connections of a backbone and nothing else of their weights."""

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        """Maps weights of the optimizer to the parameters that replace them there."""
        ...

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Make sure that ``optimizer`` takes the same steps on the replacements as on the weights.

        Raises:
            ValueError: If it is not known to do so.
        """
        ...

    def start(self, registered: bool = True) -> None:
        """Prepare training; called once before the first step, after the weights are loaded.

        Args:
            registered: Whether ``parameters()`` of the model includes the replacements, so that frameworks train them
                and DDP reduces their gradients. A client that passes :meth:`replacements` to the optimizer itself sets
                False; :meth:`before_step` then averages their gradients over processes.
        """
        ...

    def close(self) -> None:
        """Restore the network as :meth:`start` found it, with the numbers trained since."""
        ...

    def watch_weights(self) -> None:
        """Prepare a forward pass of a module that contains the backbone."""
        ...

    def before_step(self) -> None:
        """Prepare complete gradients, before they are unscaled or clipped."""
        ...

    def after_step(self) -> None:
        """Copy the result of an optimizer step into the weights."""
        ...

    def report(self) -> str:
        """The text about sparse training in the table at the start of training."""
        ...


class MaskedTraining:
    """Sets dense gradients to zero where nothing is chosen, and restores the frozen numbers after each step.

    Gradients are masked as they arrive, so that clipping and overflow checks see only what is trained. Zero gradients
    alone freeze nothing: weight decay and earlier momentum move every number. Restoring the originals from a copy keeps
    them bit-identical under any optimizer.

    Args:
        backbone: The network that ``selection`` was made for.
        selection: What is trained.

    Raises:
        SelectionMismatchError: If the selection was made for another network.
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
        """Stop masking gradients."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


@torch.no_grad()
def _mask(frozen: Tensor, weight: Tensor) -> None:
    if weight.grad is not None:
        weight.grad.masked_fill_(frozen, 0)
