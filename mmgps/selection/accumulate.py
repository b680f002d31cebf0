"""How the gradients of the batches of a pass become one number for each connection."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Accumulation(Protocol):
    """A rule that takes the gradients of the batches one by one."""

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        """Add the gradient of one batch, times ``factor``, to ``total`` in place."""
        ...


class GradientSum:
    """The sum: GPS. Autograd keeps it by itself, without a second tensor."""

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        total.add_(gradient, alpha=factor)


class SquaredGradientSum:
    """The sum of squares: the sensitivity of SPT (He et al., ICCV 2023, equation 4)."""

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        total.addcmul_(gradient, gradient, value=factor**2)
