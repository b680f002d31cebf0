"""Attach trained values to the output of a layer: backward computes their gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx import _symbolic_trace

from .derived import Derivation, derivation_of
from .routes import Route


class GradientPlan(Protocol):
    """How one layer computes the gradient of its values, and what it saves of its input for that."""

    route: Route

    def saved_input(self, x: Tensor, bias: bool) -> Tensor:
        """The part of the input ``x`` that :meth:`gradient` needs.

        Args:
            x: The input of the layer.
            bias: Whether the gradient of the layer's bias is needed too.
        """
        ...

    def saved_mapped_input(self, x: Tensor, bias: bool, then: Callable[[Tensor], Tensor]) -> Tensor:
        """:meth:`saved_input` of ``then(x)``, where ``then`` is an elementwise function."""
        return self.saved_input(then(x), bias)

    def contiguous_grad(self, dy: Tensor) -> Tensor:
        """``dy`` in the memory layout that :meth:`gradient` and the layer's own backward read: one copy serves both."""
        ...

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of the values, ``[chosen]``, and of the bias, from the gradient ``dy`` of the layer's output."""
        ...


class _Attach(torch.autograd.Function):
    """Identity in ``y`` whose backward also gives the gradients of ``values`` and ``bias``.

    The output is ``y`` under another handle: no copy, and operations that change it in place are allowed, which they
    would not be on a view that a Function returns.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        plan: GradientPlan,
        derived: Derivation | None,
    ) -> Tensor:
        if derived is None:
            ctx.save_for_backward(plan.saved_input(x, bias is not None).to(y.dtype))
        else:
            ctx.save_for_backward(*derived.sources)
        ctx.derived = None if derived is None else replace(derived, sources=())
        ctx.plan, ctx.shape, ctx.bias = plan, values.shape, bias is not None
        return y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.derived is None:
            (kept,) = ctx.saved_tensors
        else:
            kept = _kept_late(ctx.plan, ctx.derived, ctx.saved_tensors, ctx.bias).to(dy.dtype)
        dy = ctx.plan.contiguous_grad(dy)
        values, bias = ctx.plan.gradient(dy, kept, ctx.bias)
        return dy, None, values.view(ctx.shape), bias, None, None


def _kept_late(plan: GradientPlan, derived: Derivation, sources: tuple[Tensor, ...], bias: bool) -> Tensor:
    """The saved input of ``plan``, taken in backward from the recomputed input."""
    made = derived.make(*sources)
    if derived.pointwise is None:
        return plan.saved_input(made, bias)
    return plan.saved_mapped_input(made, bias, derived.pointwise)


# not in every version of torch that is supported
_is_exporting: Callable[[], bool] = getattr(torch.compiler, 'is_exporting', torch.jit.is_tracing)


def recorded() -> bool:
    """Whether a trace, an export or ``torch.fx`` records the operations, for a graph that is never trained."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call]
    return tracing or _is_exporting() or getattr(_symbolic_trace, '_is_fx_tracing_flag', False)


def needs_grad(values: Tensor) -> bool:
    """Whether ``values`` needs a gradient."""
    return torch.is_grad_enabled() and values.requires_grad and not recorded()


def constant(weight: Tensor) -> Tensor:
    """``weight`` as a constant: its own gradient comes from other readers only.

    If no gradient is recorded, and in a trace or an export, the weight itself is returned, so that a mode that watches
    reads of the weight sees this one.
    """
    return weight.detach() if torch.is_grad_enabled() and not recorded() else weight


def attach(y: Tensor, x: Tensor, values: Tensor, bias: Tensor | None, plan: GradientPlan) -> Tensor:
    """The output ``y`` of a layer for ``x``, made to depend on ``values`` and, if given, on ``bias``."""
    attached: Tensor = _Attach.apply(y, x, values, bias, plan, derivation_of(x))  # type: ignore[no-untyped-call]
    return attached
