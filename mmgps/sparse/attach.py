"""Attach trained values to the output of a layer, and decide what backward saves of its input.

A layer norm saves its own input, so the linear layer behind it need not save the output of the norm: backward can
recompute it. The producer of such an output marks it with its :class:`Derivation`; a consumer saves the sources of the
derivation instead, which are stored once for all consumers. A mark also holds for views of the tensor, and becomes void
when numbers change in place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx import _symbolic_trace

from .routes import Route

MARK = '_mmgps_derivation'

Make = Callable[..., Tensor]


@dataclass(frozen=True)
class Derivation:
    """The recipe to recompute a tensor.

    Args:
        sources: Detached tensors that autograd saves anyway.
        make: ``make(*sources)`` is the tensor.
        pointwise: The elementwise function that turns ``make(*sources)`` into the tensor, so that a part of the tensor
            needs only the same part of ``make``. None if ``make`` gives the tensor itself.
        product: Whether a matrix product is part of ``make``.
    """

    sources: tuple[Tensor, ...]
    make: Make
    pointwise: Callable[[Tensor], Tensor] | None = None
    product: bool = False


@dataclass(frozen=True)
class _Marked:
    """A derivation, with the versions and the memory layout for which it is valid."""

    derivation: Derivation
    version: int
    sources: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


def mark_derived(y: Tensor, derivation: Derivation) -> None:
    """Mark ``y`` and its views as recomputable by ``derivation``; a partial view is not marked."""
    if y.numel() != _root(y).numel():
        return
    versions = tuple(source._version for source in derivation.sources)
    setattr(_root(y), MARK, _Marked(derivation, y._version, versions, y.stride(), int(y.storage_offset())))


def derivation_of(x: Tensor) -> Derivation | None:
    """The derivation of ``x``, or None if it should be saved: without a valid mark, and always in ``torch.compile``."""
    if torch.compiler.is_compiling():
        return None
    marked: _Marked | None = getattr(_root(x), MARK, None)
    if marked is None or marked.version != x._version:
        return None
    derivation = marked.derivation
    if marked.sources != tuple(source._version for source in derivation.sources):
        return None
    view = _View(derivation.make, marked.stride, tuple(x.shape), x.stride(), int(x.storage_offset()) - marked.offset)
    return Derivation(derivation.sources, view, derivation.pointwise, derivation.product)


class InAutocast:
    """Calls ``function`` under the autocast settings that were active during construction.

    Args:
        function: Computes a tensor.
        device: Device type of the autocast.
    """

    def __init__(self, function: Make, device: str) -> None:
        self._function, self._device = function, device
        self._enabled, self._dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def __call__(self, *sources: Any) -> Tensor:
        with torch.no_grad(), torch.autocast(self._device, self._dtype, self._enabled, cache_enabled=False):
            return self._function(*sources)


@dataclass(frozen=True)
class _View:
    """A view of the result of ``make``, with the memory layout of the forward pass."""

    make: Make
    made: tuple[int, ...]
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def __call__(self, *sources: Any) -> Tensor:
        y = self.make(*sources)
        if y.stride() != self.made:
            y = torch.empty_strided(y.shape, self.made, dtype=y.dtype, device=y.device).copy_(y)
        return y.as_strided(self.shape, self.stride, y.storage_offset() + self.offset)


def identity(x: Tensor) -> Tensor:
    """Return ``x``: the ``make`` of a tensor that autograd saves itself."""
    return x


def _root(x: Tensor) -> Tensor:
    """The base of a view, or ``x`` itself."""
    return x if x._base is None else x._base


class GradientPlan(ABC):
    """Computes the gradient of the values of one layer, from the part of its input that it saves."""

    route: Route

    def saved_input(self, x: Tensor, bias: bool) -> Tensor:
        """The part of the input ``x`` that :meth:`gradient` needs; all of it by default.

        Args:
            x: The input of the layer.
            bias: Whether the gradient of the layer's bias is needed too.
        """
        return x

    def saved_mapped_input(self, x: Tensor, bias: bool, then: Callable[[Tensor], Tensor]) -> Tensor:
        """:meth:`saved_input` of ``then(x)``, where ``then`` is an elementwise function."""
        return self.saved_input(then(x), bias)

    def contiguous_grad(self, dy: Tensor) -> Tensor:
        """``dy`` in the layout that :meth:`gradient` and the layer's own backward read, so one copy serves both."""
        return dy

    @abstractmethod
    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of the values, ``[chosen]``, and of the bias, from the gradient ``dy`` of the layer's output."""


class _Attach(torch.autograd.Function):
    """Identity in ``y`` whose backward also computes the gradients of ``values`` and ``bias``.

    The output shares the memory of ``y`` but is no view of it, so operations may change it in place.
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
            kept = _recomputed_input(ctx.plan, ctx.derived, ctx.saved_tensors, ctx.bias).to(dy.dtype)
        dy = ctx.plan.contiguous_grad(dy)
        values, bias = ctx.plan.gradient(dy, kept, ctx.bias)
        return dy, None, values.view(ctx.shape), bias, None, None


def _recomputed_input(plan: GradientPlan, derived: Derivation, sources: tuple[Tensor, ...], bias: bool) -> Tensor:
    """The part of the recomputed input that ``plan`` needs."""
    made = derived.make(*sources)
    if derived.pointwise is None:
        return plan.saved_input(made, bias)
    return plan.saved_mapped_input(made, bias, derived.pointwise)


# older supported versions of torch have no is_exporting
_is_exporting: Callable[[], bool] = getattr(torch.compiler, 'is_exporting', torch.jit.is_tracing)


def recorded() -> bool:
    """True if a trace, an export or ``torch.fx`` is recording a graph, which is never trained."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call]
    return tracing or _is_exporting() or getattr(_symbolic_trace, '_is_fx_tracing_flag', False)


def needs_grad(values: Tensor) -> bool:
    """True if ``values`` needs a gradient."""
    return torch.is_grad_enabled() and values.requires_grad and not recorded()


def constant(weight: Tensor) -> Tensor:
    """``weight`` detached: its own gradient comes from other readers only.

    Without gradients, and in a trace or an export, the weight itself is returned, so that a mode that watches reads of
    the weight sees this one.
    """
    return weight.detach() if torch.is_grad_enabled() and not recorded() else weight


def attach(y: Tensor, x: Tensor, values: Tensor, bias: Tensor | None, plan: GradientPlan) -> Tensor:
    """Make the output ``y`` of a layer for ``x`` depend on ``values`` and, if given, on ``bias``."""
    attached: Tensor = _Attach.apply(y, x, values, bias, plan, derivation_of(x))  # type: ignore[no-untyped-call]
    return attached
