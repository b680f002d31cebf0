"""LoRA (Hu et al., ICLR 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.sparse.linear import dense_linear

from .base import InjectionMethod, generator_for, positive
from .operations import Operation, place
from .sites import LayerPart, Site, as_parts, find_sites, pick_sites

SUPPORTED = (LayerPart.QKV, LayerPart.PROJ, LayerPart.FC1, LayerPart.FC2, LayerPart.LINEAR, LayerPart.CONV)
"""Parts that have a low-rank form."""
CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


class LowRank(Operation):
    """``y + scale * b (a x)`` behind a linear map.

    Starts as the identity: ``b`` is zero, ``a`` is uniform in +-1/sqrt(inputs). This is Kaiming's rule with
    a = sqrt(5), which peft and the authors use.

    Args:
        shape: Shape of the weight, ``[outputs, inputs, *kernel]``.
        rank: Rank of the factors ``a`` ``[rank, inputs, *kernel]`` and ``b`` ``[outputs, rank]``.
        scale: Factor of the added term.
        generator: Generator of ``a``.
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
    """The same behind a convolution: ``a`` is a convolution to ``rank`` channels, ``b`` has kernel size 1.

    Args:
        owner: The convolution, not grouped, padded by zeros.
        rank: Rank of the factors.
        scale: Factor of the added term.
        generator: Generator of ``a``.
    """

    def __init__(self, owner: Any, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__(owner.weight.shape, rank, scale, generator)
        self.geometry = (owner.stride, owner.padding, owner.dilation)

    def forward(self, x: Tensor, y: Tensor, rows: slice, dim: int) -> Tensor:
        convolve = CONVOLVE[self.a.dim()]
        low = convolve(x, self.a, None, *self.geometry)
        return y + self.scale * convolve(low, self.b.view(*self.b.shape, *[1] * (self.a.dim() - 2)))


def low_rank(site: Site, rank: int, scale: float) -> LowRank:
    """The low-rank operation for ``site``."""
    generator = generator_for(site.parameter_name(LowRank.key, 'a'))
    if site.weight.dim() > 2:
        return LowRankConv(site.owner, rank, scale, generator)
    return LowRank(site.weight.shape, rank, scale, generator)


class LoRA(InjectionMethod):
    """``y += alpha / rank * B A x`` behind linear layers and convolutions.

    Args:
        rank: Rank of the factors, at least 1.
        alpha: Numerator of the factor ``alpha / rank``; by default equal to ``rank``, so that the factor is 1.
        parts: Layers that get factors, see :class:`LayerPart`. By default the query, key and value projections; in a
            backbone without attention every linear layer and every convolution that is not grouped.

    Raises:
        ValueError: For a rank below 1, or a part that is unknown or has no low-rank form.
    """

    name = 'lora'

    def __init__(self, rank: int = 8, alpha: float | None = None, parts: str | Sequence[str] | None = None) -> None:
        self.rank = positive('rank', rank)
        self.alpha = float(rank if alpha is None else alpha)
        self.parts = as_parts(parts, self.name, SUPPORTED)

    def settings(self) -> dict[str, object]:
        return {'rank': self.rank, 'alpha': self.alpha, 'parts': self.parts and [part.value for part in self.parts]}

    def put_in_place(self, backbone: nn.Module) -> None:
        attends = any(site.part is LayerPart.QKV for site in find_sites(backbone))
        parts = self.parts or ((LayerPart.QKV,) if attends else SUPPORTED)
        for site in pick_sites(backbone, parts, self.name):
            place(site, low_rank(site, self.rank, self.alpha / self.rank))
