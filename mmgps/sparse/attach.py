"""How the gradient of a few numbers of a weight is made from what the layer's own operation gives anyway."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .routes import Route


class Plan(Protocol):
    """What one layer keeps of its input, and how it makes the gradient of its values from it."""

    route: Route

    def keep(self, x: Tensor) -> Tensor:
        """What has to be kept of the input ``x``, as it came into the layer."""
        ...

    def gradient(self, dy: Tensor, kept: Tensor) -> Tensor:
        """The gradient of the values, ``[chosen]``, from that of the layer's output."""
        ...


class _Attach(torch.autograd.Function):
    """Identity in ``y`` whose backward also gives the gradient of ``values``.

    The output is ``y`` under another handle: no copy, and operations that change it in place are allowed, which they
    would not be on a view that a Function returns.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, values: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(plan.keep(x).to(y.dtype))
        ctx.plan, ctx.shape = plan, values.shape
        return y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, Tensor, None]:
        (kept,) = ctx.saved_tensors
        return dy, None, ctx.plan.gradient(dy, kept).view(ctx.shape), None


def attach(y: Tensor, x: Tensor, values: Tensor, plan: Plan) -> Tensor:
    """``y``, the output of a layer for ``x``, made to depend on ``values``; nothing is kept where no gradient flows."""
    if not (torch.is_grad_enabled() and values.requires_grad):
        return y
    attached: Tensor = _Attach.apply(y, x, values, plan)  # type: ignore[no-untyped-call]
    return attached


class AttachHook:
    """Forward hook of a layer that calls :func:`attach`. A copy or a pickle of the layer gets none of it."""

    def __init__(self, values: nn.Parameter, plan: Plan) -> None:
        self.values, self.plan = values, plan

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        return attach(output, args[0] if args else kwargs['input'], self.values, self.plan)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_no_hook, ())


def _no_hook() -> Any:
    return ignore


def ignore(*_: Any) -> None:
    """The hook that a copied module has where its original had one."""
