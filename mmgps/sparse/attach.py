"""How the gradient of a few numbers of a weight is made from what the layer's own operation gives anyway."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .routes import Route


class Plan(Protocol):
    """What one layer keeps of its input, and how it makes the gradient of its values from it."""

    route: Route

    def keep(self, x: Tensor, bias: bool) -> Tensor:
        """What has to be kept of the input ``x``, as it came into the layer.

        Args:
            x: The input.
            bias: Whether the gradient of the layer's bias is wanted too.
        """
        ...

    def lay_out(self, dy: Tensor) -> Tensor:
        """``dy`` in memory as :meth:`gradient` and the layer's own backward read it, so that it is copied once."""
        ...

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        """The gradient of the values, ``[chosen]``, and that of the bias, from that of the layer's output."""
        ...


class _Attach(torch.autograd.Function):
    """Identity in ``y`` whose backward also gives the gradients of ``values`` and ``bias``.

    The output is ``y`` under another handle: no copy, and operations that change it in place are allowed, which they
    would not be on a view that a Function returns.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
        ctx.save_for_backward(plan.keep(x, bias is not None).to(y.dtype))
        ctx.plan, ctx.shape, ctx.bias = plan, values.shape, bias is not None
        return y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (kept,) = ctx.saved_tensors
        dy = ctx.plan.lay_out(dy)
        values, bias = ctx.plan.gradient(dy, kept, ctx.bias)
        return dy, None, values.view(ctx.shape), bias, None


def wanted(values: Tensor) -> bool:
    """Whether the gradient of ``values`` is."""
    return torch.is_grad_enabled() and values.requires_grad


def attach(y: Tensor, x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
    """``y``, the output of a layer for ``x``, made to depend on ``values``, and on ``bias`` where one is given."""
    attached: Tensor = _Attach.apply(y, x, values, bias, plan)  # type: ignore[no-untyped-call]
    return attached
