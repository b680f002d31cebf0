"""The way that works for every owner of a weight: its own dense gradient, picked from at once and freed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from .attach import no_hook, wanted
from .routes import Kind, Route
from .weight import TrainedWeight


class _Stand(torch.autograd.Function):
    """The frozen weight, made to depend on its values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: TrainedWeight) -> Tensor:
        ctx.weight, ctx.shape = weight, values.shape
        return weight.dense.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.reshape(-1).index_select(0, ctx.weight.flat).view(ctx.shape), None


def stand_in(weight: TrainedWeight) -> Tensor | None:
    """A tensor to compute with in place of the weight, None where no gradient flows."""
    if not wanted(weight.values):
        return None
    stand: Tensor = _Stand.apply(weight.values, weight)  # type: ignore[no-untyped-call]
    return stand


def fallback_route(weight: TrainedWeight) -> Route:
    return Route(Kind.FALLBACK, weight.layout.fan_in, weight.layout.fan_in, len(weight))


class Shadow:
    """Puts the stand-in of one weight where its owner looks first: before its parameters.

    The parameter stays registered throughout, so that names, order and state dict are those of the base.
    """

    def __init__(self, owner: nn.Module, attribute: str, weight: TrainedWeight) -> None:
        self._owner, self._attribute, self._weight = owner, attribute, weight

    def cast(self) -> bool:
        """Make a stand-in and put it in place, unless no gradient flows; say whether."""
        stand = stand_in(self._weight)
        if stand is not None:
            self.put(stand)
        return stand is not None

    def put(self, stand: Tensor) -> None:
        self._owner.__dict__[self._attribute] = stand
        if isinstance(self._owner, nn.RNNBase):  # reads a list of its own
            dense = self._weight.dense
            self._owner._flat_weights = [stand if w is dense else w for w in self._owner._flat_weights]

    def lift(self) -> Tensor | None:
        """Take the stand-in away and return it, None if there was none."""
        stand: Tensor | None = self._owner.__dict__.pop(self._attribute, None)
        if stand is not None and isinstance(self._owner, nn.RNNBase):
            dense = self._weight.dense
            self._owner._flat_weights = [dense if w is stand else w for w in self._owner._flat_weights]
        return stand


def install_fallback(owner: nn.Module, attribute: str, weight: TrainedWeight) -> list[RemovableHandle]:
    """During each forward of ``owner``, let it compute with the stand-in of its weight."""
    shadow = Shadow(owner, attribute, weight)
    return [
        # before others, which may compute with the weight: those of weight norm do
        owner.register_forward_pre_hook(Call(shadow.cast), prepend=True),
        owner.register_forward_hook(Call(shadow.lift), always_call=True),
    ]


class Call:
    """A hook that does something and leaves inputs and outputs alone. A copied module gets none of it."""

    def __init__(self, action: Any) -> None:
        self._action = action

    def __call__(self, *_: Any) -> None:
        self._action()

    def __reduce__(self) -> tuple[Any, ...]:
        return (no_hook, ())
