"""``nn.MultiheadAttention``, which never calls its output projection and packs three weights into one.

Its own code runs, with one name bound anew: what it calls ``linear`` also attaches the gradient of the values. So the
mathematics, the masks, the dropout and the fast inference path are those of the installed torch.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .forward import OwnForward, runs_forward_of
from .linear import LinearPlan, attached_linear, linear_plan
from .routes import Route
from .weight import TrainedWeight


def runs_natively(owner: nn.Module) -> bool:
    """Whether ``owner`` is a ``nn.MultiheadAttention`` that computes as torch wrote it."""
    return isinstance(owner, nn.MultiheadAttention) and runs_forward_of(owner, {nn.MultiheadAttention.__module__})


class Projection:
    """A weight of the attention, or some rows of it, and the plans for them."""

    def __init__(self, weight: TrainedWeight) -> None:
        self.weight = weight
        self._parts: dict[tuple[int, int], tuple[slice, LinearPlan] | None] = {}

    def __call__(self, x: Tensor, w: Tensor, b: Tensor | None, start: int) -> Tensor:
        """The linear map by ``w``, the rows of the weight from ``start``, that depends on the values in them."""
        part = self.part(start, start + len(w))
        if part is None:
            return F.linear(x, w, b)
        entries, plan = part
        values: Tensor = self.weight.values
        if entries != slice(0, len(self.weight)):
            values = values.reshape(-1)[entries]
        return attached_linear(x, w, b, values, plan)

    def part(self, start: int, stop: int) -> tuple[slice, LinearPlan] | None:
        """The values in some rows, which are consecutive, and their plan."""
        key = (start, stop)
        if key not in self._parts:
            rows = self.weight.rows
            first, last = int((rows < start).sum()), int((rows < stop).sum())
            entries, columns = slice(first, last), self.weight.columns[first:last]
            plan = linear_plan(rows[entries] - start, columns, stop - start, self.weight.layout.fan_in)
            self._parts[key] = (entries, plan) if last > first else None
        return self._parts[key]


class AttentionForward(OwnForward):
    """The forward of one ``nn.MultiheadAttention`` while weights of it are trained, from construction to ``remove``.

    Args:
        owner: The module.
        weights: Those of its weights that are trained, among them that of its output projection.
    """

    def __init__(self, owner: nn.MultiheadAttention, weights: Sequence[TrainedWeight]) -> None:
        super().__init__(owner)
        self._owner: nn.MultiheadAttention = owner
        self._projections = {id(weight.dense): Projection(weight) for weight in weights}
        self._packed = self._projections.get(id(owner.in_proj_weight))
        # the fast inference path would give the values no gradient
        self._forward = attention_code(self._linear, _arg_requires_grad=lambda _: True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self._owner, *args, **kwargs)

    def _linear(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        whole = self._projections.get(id(w))
        if whole is not None:
            return whole(x, w, b, 0)
        packed = self._owner.in_proj_weight
        if self._packed is None or w is self._owner.out_proj.weight:
            return F.linear(x, w, b)
        return self._packed(x, w, b, (w.storage_offset() - packed.storage_offset()) // packed.stride(0))

    def routes(self) -> dict[str, Route]:
        """Weight name to the route of a call with all its rows."""
        plans = {p.weight.name: p.part(0, p.weight.layout.neurons) for p in self._projections.values()}
        return {name: part[1].route for name, part in plans.items() if part is not None}


def attention_code(linear: Callable[..., Tensor], **names: Any) -> Callable[..., Any]:
    """torch's code of the attention's forward, calling ``linear``.

    Args:
        linear: In place of ``F.linear``; gets the packed weight or consecutive rows of it.
        names: Other names of torch's module that the forward is to see bound anew.
    """
    inner = F.multi_head_attention_forward
    parts = {name: _rebound(getattr(F, name), linear=linear) for name in ('_in_projection_packed', '_in_projection')}
    attention = _rebound(inner, linear=linear, **parts)
    functional = types.SimpleNamespace(**{**vars(F), inner.__name__: attention})
    forward: Callable[..., Any] = _rebound(nn.MultiheadAttention.forward, F=functional, **names)
    return forward


def _rebound(function: Any, **names: Any) -> Any:
    """``function`` with some of its global names bound to something else."""
    scope = {**function.__globals__, **names}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
