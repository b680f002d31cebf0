"""Low-rank additions to linear layers and convolutions."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.sparse.linear import dense_linear

from .injection import generator_for
from .operations import Operation
from .sites import Site

CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


class LowRank(Operation):
    """``y + scale * b (a x)`` behind a linear map.

    Starts as the identity: ``b`` is zero, ``a`` uniform in +-1/sqrt(inputs), Kaiming's rule with a = sqrt(5) as peft
    and the authors have it.

    Args:
        shape: Of the weight, ``[outputs, inputs, *kernel]``.
        rank: Of the factors ``a`` ``[rank, inputs, *kernel]`` and ``b`` ``[outputs, rank]``.
        scale: Factor of what is added.
        generator: Where ``a`` comes from.
    """

    key = 'lora'

    def __init__(self, shape: torch.Size, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(shape[1:].numel())
        self.a = nn.Parameter(torch.empty(rank, *shape[1:]).uniform_(-bound, bound, generator=generator))
        self.b = nn.Parameter(torch.zeros(shape[0], rank))
        self.scale = scale

    def forward(self, x: Tensor, y: Tensor, rows: slice, dim: int) -> Tensor:
        return y + self.scale * F.linear(dense_linear(x, self.a, None), self.b[rows])

    def merge(self, weight: Tensor, bias: Tensor | None) -> None:
        weight += self.scale * self.b @ self.a.flatten(1)


class LowRankConv(LowRank):
    """The same behind a convolution: ``a`` is one with ``rank`` outputs, ``b`` one of kernel size 1.

    Args:
        owner: The convolution, not grouped, padded by zeros.
        rank: Of the factors.
        scale: Factor of what is added.
        generator: Where ``a`` comes from.
    """

    def __init__(self, owner: Any, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__(owner.weight.shape, rank, scale, generator)
        self.geometry = (owner.stride, owner.padding, owner.dilation)

    def forward(self, x: Tensor, y: Tensor, rows: slice, dim: int) -> Tensor:
        convolve = CONVOLVE[self.a.dim()]
        low = convolve(x, self.a, None, *self.geometry)
        return y + self.scale * convolve(low, self.b.view(*self.b.shape, *[1] * (self.a.dim() - 2)))


def low_rank(site: Site, rank: int, scale: float) -> LowRank:
    """What :class:`LowRank` is for ``site``."""
    generator = generator_for(site.parameter_name(LowRank.key, 'a'))
    if site.weight.dim() > 2:
        return LowRankConv(site.owner, rank, scale, generator)
    return LowRank(site.weight.shape, rank, scale, generator)
