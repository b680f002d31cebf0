"""How the gradients of the batches of a pass become one tensor for each weight."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Accumulation(Protocol):
    """A rule that takes the gradients of the batches one by one."""

    def zeros(self, weight: Tensor) -> Tensor:
        """The total of no batch, in float32 or wider."""
        ...

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        """Add the gradient of one batch, times ``factor``, to ``total`` in place."""
        ...


class GradientSum:
    """The sum: GPS. Autograd keeps it by itself, without a second tensor."""

    def zeros(self, weight: Tensor) -> Tensor:
        return zeros_of(weight)

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        total.add_(gradient, alpha=factor)


class SquaredGradientSum:
    """The sum of squares: the sensitivity of SPT (He et al., ICCV 2023, equation 4)."""

    def zeros(self, weight: Tensor) -> Tensor:
        return zeros_of(weight)

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        total.addcmul_(gradient, gradient, value=factor**2)


class GradientMoments:
    """Both, ``[2, *shape]``: the sum, then the sum of squares."""

    def zeros(self, weight: Tensor) -> Tensor:
        return zeros_of(weight, 2)

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        total[0].add_(gradient, alpha=factor)
        total[1].addcmul_(gradient, gradient, value=factor**2)


def zeros_of(weight: Tensor, *leading: int) -> Tensor:
    """Zeros of the shape of ``weight`` behind ``leading``, float32 or wider, on its device."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros(*leading, *weight.shape, dtype=wide, device=weight.device)
