"""SSF: scaling and shifting features (Lian et al., NeurIPS 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .base import InjectionMethod, generator_for
from .operations import Operation, place
from .sites import LayerPart, Site, pick_sites

CONVOLUTIONS = (LayerPart.CONV, LayerPart.GROUPED)


class SSF(InjectionMethod):
    """``y * scale + shift``, channel by channel, behind every norm, linear layer and convolution.

    A layer without a bias gets a scale alone, so that all of it can be merged into the weights.

    Norms that take statistics from the batch undo a scale and a shift before them, so convolutions of a backbone with
    such norms get none.

    Args:
        std: Standard deviation of the initial scales around 1 and the initial shifts around 0. With the authors' 0.02
            the network does not start as the base; with 0 it does.

    Raises:
        ValueError: For a negative deviation.
    """

    name = 'ssf'

    def __init__(self, std: float = 0.02) -> None:
        if std < 0:
            raise ValueError(f'std, the deviation of the initial scales and shifts, must be at least 0, got {std}')
        self.std = float(std)

    def settings(self) -> dict[str, object]:
        return {'std': self.std}

    def put_in_place(self, backbone: nn.Module) -> None:
        batch = any(isinstance(module, _NormBase) for module in backbone.modules())
        parts = [part for part in LayerPart if not (batch and part in CONVOLUTIONS)]
        for site in pick_sites(backbone, parts, self.name):
            place(site, ScaleShift(site, self.std))


class ScaleShift(Operation):
    """``y * scale + shift``, both ``[outputs]``; without the shift if the map has no bias.

    Args:
        site: The map to follow.
        std: Standard deviation of the initial numbers.
    """

    key = 'ssf'

    def __init__(self, site: Site, std: float) -> None:
        super().__init__()
        generator = generator_for(site.parameter_name(self.key, 'scale'))
        first = torch.empty(2, site.outputs).normal_(0, 1, generator=generator) * std
        self.scale = nn.Parameter(1 + first[0])
        self.shift = None if site.bias is None else nn.Parameter(first[1].clone())

    def forward(self, x: Tensor, y: Tensor, rows: slice, dim: int) -> Tensor:
        shape = (-1, *[1] * (y.dim() - 2)) if dim == 1 else (-1,)
        y = y * self.scale[rows].to(y.dtype).view(shape)
        return y if self.shift is None else y + self.shift[rows].to(y.dtype).view(shape)

    def merge(self, weight: Tensor, bias: Tensor | None) -> None:
        weight *= self.scale[:, None]
        if bias is not None and self.shift is not None:
            bias.mul_(self.scale).add_(self.shift)

    @torch.no_grad()
    def neutralize(self) -> None:
        self.scale.fill_(1)
        if self.shift is not None:
            self.shift.zero_()
