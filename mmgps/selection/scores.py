"""Scores of connections: the larger, the better a connection is worth training."""

from __future__ import annotations

import zlib
from typing import Protocol

import torch
from torch import Tensor

from .roles import Parameter


class Score(Protocol):
    """A score of connections."""

    needs_gradient: bool

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        """Scores of the shape of the parameter.

        Args:
            parameter: The weight.
            gradient: Its gradient summed over the selection pass; None where ``needs_gradient`` is False.
        """
        ...


class GradientScore:
    """Absolute value of the gradient summed over the whole pass: the paper's score, equation 2.

    The sum comes first: a connection whose gradient changes its sign from batch to batch scores low.
    """

    needs_gradient = True

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        assert gradient is not None
        return gradient.abs()


class MagnitudeScore:
    """Absolute value of the pre-trained weight (ablation)."""

    needs_gradient = False

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        return parameter.value.detach().float().abs()


class RandomScore:
    """Uniform random scores (ablation): a function of the seed and the layer's name alone, on every device.

    Args:
        seed: Any integer.
    """

    needs_gradient = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, parameter: Parameter, gradient: Tensor | None) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(f'{self.seed}/{parameter.name}'.encode()))
        return torch.rand(parameter.value.shape, generator=generator).to(parameter.value.device)
