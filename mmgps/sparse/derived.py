"""Tensors that backward can recompute from others, which autograd saves anyway.

A layer norm saves its input, so the linear layer behind it need not save the output of the norm. The producer of such
an output marks it with its :class:`Derivation`; a consumer saves the sources of the derivation instead, which are
stored once for all consumers. A mark also holds for views of the tensor, and becomes void when numbers change in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
    """A derivation with the versions and the layout for which it is valid."""

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
    """The derivation of ``x``; None if saving it is not known to cost more than recomputing it.

    Always None within ``torch.compile``, which decides itself what to recompute.
    """
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
    """``function`` under the autocast of the time of construction, whenever it is called.

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
    """``x``: the ``make`` of a tensor that autograd saves itself."""
    return x


def _root(x: Tensor) -> Tensor:
    """The tensor of which ``x`` is a view, or ``x``."""
    base = x._base
    return x if base is None else base
