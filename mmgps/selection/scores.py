"""Scores of connections, the largest of which are trained, and the accumulation of gradients for them."""

from __future__ import annotations

import zlib
from typing import Protocol

import torch
from torch import Tensor

from .roles import Parameter


class Accumulation(Protocol):
    """A rule that accumulates the gradients of the batches."""

    def zeros(self, weight: Tensor) -> Tensor:
        """The total before the first batch, in float32 or wider."""
        ...

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        """Add the gradient of one batch, times ``factor``, to ``total`` in place."""
        ...


class GradientSum:
    """Sums gradients, as in GPS. Autograd does it without a second tensor."""

    def zeros(self, weight: Tensor) -> Tensor:
        return zeros_of(weight)

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        total.add_(gradient, alpha=factor)


class SquaredGradientSum:
    """Sums squared gradients: the sensitivity of SPT (He et al., ICCV 2023, equation 4)."""

    def zeros(self, weight: Tensor) -> Tensor:
        return zeros_of(weight)

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        total.addcmul_(gradient, gradient, value=factor**2)


class GradientMoments:
    """Sums gradients and squared gradients, ``[2, *shape]``."""

    def zeros(self, weight: Tensor) -> Tensor:
        return zeros_of(weight, 2)

    def add(self, total: Tensor, gradient: Tensor, factor: float) -> None:
        total[0].add_(gradient, alpha=factor)
        total[1].addcmul_(gradient, gradient, value=factor**2)


def zeros_of(weight: Tensor, *leading: int) -> Tensor:
    """Zeros ``[*leading, *weight.shape]`` on the device of ``weight``, float32 or wider."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros(*leading, *weight.shape, dtype=wide, device=weight.device)


class Score(Protocol):
    """A score of connections."""

    needs_gradient: bool

    @property
    def accumulation(self) -> Accumulation:
        """The rule by which the selection pass accumulates the gradients of the batches."""
        ...

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        """Scores of the shape of the parameter.

        Args:
            parameter: The weight.
            gradient: Its gradients accumulated over the selection pass; None if ``needs_gradient`` is False.
        """
        ...


class GradientScore:
    """Absolute value of the gradient summed over the whole pass: the paper's score, equation 2.

    Summing comes first, so a connection whose gradient changes its sign from batch to batch scores low.
    """

    needs_gradient = True
    accumulation = GradientSum()

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        assert gradient is not None
        return gradient.abs()


class TaylorScore:
    """The summed gradient times the weight: the first-order change of the loss if the connection were removed.

    Molchanov et al., *Importance Estimation for Neural Network Pruning*, CVPR 2019, equation 8, unsquared.
    """

    needs_gradient = True
    accumulation = GradientSum()

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        assert gradient is not None
        return gradient.abs() * parameter.value.detach().to(gradient).abs()


class SquaredGradientScore:
    """Sum of the squared gradients of the batches: the sensitivity of SPT, for the choice of GPS.

    It does not depend on whether the gradient changes its sign from batch to batch.
    """

    needs_gradient = True
    accumulation = SquaredGradientSum()

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        assert gradient is not None
        return gradient


class SignalToNoiseScore:
    """Ratio of the mean of a connection's gradient to its deviation from batch to batch.

    With the sum ``s`` and the sum of squares ``q`` over ``n`` batches, the ratio is ``r / sqrt(1 - r**2)`` for
    ``r = |s| / sqrt(n q)``. It grows with ``|s| / sqrt(q)``, which is the score, or zero if all gradients are zero.
    """

    needs_gradient = True
    accumulation = GradientMoments()

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        assert gradient is not None
        total, squares = gradient
        return torch.where(squares > 0, total.abs() / squares.sqrt(), 0)


class MagnitudeScore:
    """Absolute value of the pre-trained weight (ablation)."""

    needs_gradient = False
    accumulation = GradientSum()

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        return parameter.value.detach().float().abs()


class RandomScore:
    """Uniform random scores (ablation), which depend on the seed and the layer's name alone, on every device.

    Args:
        seed: Any integer.
    """

    needs_gradient = False
    accumulation = GradientSum()

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(f'{self.seed}/{parameter.name}'.encode()))
        return torch.rand(parameter.value.shape, generator=generator).to(parameter.value.device)
