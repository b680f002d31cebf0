"""Adapters (Houlsby et al., ICML 2019; Pfeiffer et al., EACL 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import InjectionMethod, generator_for, positive
from .operations import Operation, place
from .sites import LayerPart, Site, as_parts, find_sites, pick_sites

SUPPORTED = (LayerPart.QKV, LayerPart.PROJ, LayerPart.FC1, LayerPart.FC2, LayerPart.LINEAR, LayerPart.BLOCK)


class Adapter(InjectionMethod):
    """``y += up(GELU(down(y)))`` behind each MLP, before its residual connection.

    Args:
        bottleneck: Width between the two maps.
        parts: Layers that get an adapter. ``('fc2',)``, Pfeiffer's form, is the default; ``('proj', 'fc2')`` is
            Houlsby's, with one behind each attention too. In a network of convolutions the default is ``('block',)``,
            the last norm of each residual block.

    Raises:
        ValueError: For a bottleneck below 1 or an unknown part.
    """

    name = 'adapter'

    def __init__(self, bottleneck: int = 8, parts: str | Sequence[str] | None = None) -> None:
        self.bottleneck = positive('bottleneck', bottleneck)
        self.parts = as_parts(parts, self.name, SUPPORTED)

    def settings(self) -> dict[str, object]:
        return {'bottleneck': self.bottleneck, 'parts': self.parts and [part.value for part in self.parts]}

    def put_in_place(self, backbone: nn.Module) -> None:
        here = {site.part for site in find_sites(backbone)}
        default = (LayerPart.BLOCK,) if LayerPart.FC2 not in here and LayerPart.BLOCK in here else (LayerPart.FC2,)
        for site in pick_sites(backbone, self.parts or default, self.name):
            place(site, Bottleneck(site, self.bottleneck))


class Bottleneck(Operation):
    """``y + up(GELU(down(y)))``.

    Starts as the identity: ``up`` and the biases are zero, ``down`` is uniform in +-1/sqrt(outputs).

    Args:
        site: The map to follow.
        width: Width of the bottleneck.
    """

    key = 'adapter'

    def __init__(self, site: Site, width: int) -> None:
        super().__init__()
        generator, bound = generator_for(site.parameter_name(self.key, 'down')), 1 / math.sqrt(site.outputs)
        self.down = nn.Parameter(torch.empty(width, site.outputs).uniform_(-bound, bound, generator=generator))
        self.down_bias = nn.Parameter(torch.zeros(width))
        self.up = nn.Parameter(torch.zeros(site.outputs, width))
        self.up_bias = nn.Parameter(torch.zeros(site.outputs))

    def forward(self, x: Tensor, y: Tensor, rows: slice, dim: int) -> Tensor:
        # permute, since torch's older ONNX exporter gets movedim wrong
        others = range(2, y.dim())
        features = y if dim == -1 else y.permute(0, *others, 1)
        low = F.gelu(F.linear(features, self.down[:, rows], self.down_bias))
        added = F.linear(low, self.up[rows], self.up_bias[rows])
        return y + (added if dim == -1 else added.permute(0, y.dim() - 1, *(at - 1 for at in others)))
