"""What stands in for an optimizer wrapper where a loss is wanted and no step."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn


class LossKeeper:
    """Keeps the losses that a model's ``train_step`` hands to its optimizer wrapper, and changes nothing.

    A model with several optimizers asks an ``OptimWrapperDict`` for each by name, and may hand one loss to each: here
    they are summed. ``train_step`` may also go through the parts of ``update_params`` itself.

    Args:
        optim_wrapper: The wrapper that this stands in for; gives the context of the forward pass, such as autocast.
    """

    def __init__(self, optim_wrapper: Any) -> None:
        self._optim_wrapper = optim_wrapper
        self._losses: list[Tensor] = []

    @property
    def loss(self) -> Tensor | None:
        """The sum of what was handed over, None if nothing was."""
        return sum(self._losses[1:], self._losses[0]) if self._losses else None

    def __getitem__(self, name: str) -> LossKeeper:
        part = LossKeeper(self._optim_wrapper[name])
        part._losses = self._losses
        return part

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """The context of the real wrapper."""
        return self._optim_wrapper.optim_context(model)

    def update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        """Keep the loss instead of training on it."""
        self._losses.append(loss)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss itself: there is no accumulation over iterations to make up for."""
        return loss

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Keep the loss; its gradient is taken later."""
        self._losses.append(loss)

    def should_update(self) -> bool:
        """Never."""
        return False

    def step(self, **kwargs: Any) -> None:
        """Nothing."""

    def zero_grad(self, **kwargs: Any) -> None:
        """Nothing."""
