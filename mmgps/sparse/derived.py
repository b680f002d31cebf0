"""Tensors that backward can make again from others, which autograd keeps anyway.

A layer norm keeps its input, so its output need not be kept as well for the linear layer behind it. What makes such an
output marks it with its :class:`Derivation`; what would keep it keeps the sources of the derivation instead, which are
stored once however many keep them. A mark follows the tensor into its views, and is void once numbers were changed in
place.
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
    """How a tensor is made again.

    Args:
        sources: Detached tensors that autograd keeps anyway.
        make: ``make(*sources)`` is the tensor.
        pointwise: Where it is an elementwise function of ``make(*sources)``, that function: some of its numbers are
            then made from as many numbers. None where ``make`` gives the tensor itself.
        product: Whether a matrix product is part of ``make``.
    """

    sources: tuple[Tensor, ...]
    make: Make
    pointwise: Callable[[Tensor], Tensor] | None = None
    product: bool = False


@dataclass(frozen=True)
class _Marked:
    """A derivation with what it holds for: versions, and the layout of the marked tensor."""

    derivation: Derivation
    version: int
    sources: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


def mark_derived(y: Tensor, derivation: Derivation) -> None:
    """Let ``y``, all of the tensor that it may be a view of, and its views be known to be made by ``derivation``."""
    if y.numel() != _root(y).numel():
        return
    versions = tuple(source._version for source in derivation.sources)
    setattr(_root(y), MARK, _Marked(derivation, y._version, versions, y.stride(), int(y.storage_offset())))


def derivation_of(x: Tensor) -> Derivation | None:
    """How ``x`` is made again, None if it is not known to be cheaper than keeping it.

    Within ``torch.compile`` nothing is: the compiler decides by itself what it makes again.
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
    """``function`` under the autocast of now, whenever it is called.

    Args:
        function: Makes a tensor.
        device: Type of the device whose autocast counts.
    """

    def __init__(self, function: Make, device: str) -> None:
        self._function, self._device = function, device
        self._enabled, self._dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def __call__(self, *sources: Any) -> Tensor:
        with torch.no_grad(), torch.autocast(self._device, self._dtype, self._enabled, cache_enabled=False):
            return self._function(*sources)


@dataclass(frozen=True)
class _View:
    """A view of what ``make`` makes, which lies in memory as it did in forward."""

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


def _root(x: Tensor) -> Tensor:
    """The tensor of which ``x`` is a view, or ``x``."""
    base = x._base
    return x if base is None else base
