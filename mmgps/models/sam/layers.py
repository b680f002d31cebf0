"""Small layers that the parts of SAM share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of ``[B, C, H, W]``, at each place by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MLPBlock(nn.Module):
    """Two linear layers on ``[..., dims]`` with an activation in between."""

    def __init__(self, dims: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dims, hidden)
        self.lin2 = nn.Linear(hidden, dims)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.act(self.lin1(x)))


class MLP(nn.Module):
    """Three linear layers on ``[..., inputs]`` with ReLU in between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        sizes = ((inputs, hidden), (hidden, hidden), (hidden, outputs))
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.layers
        for layer in inner:
            x = F.relu(layer(x))
        return last(x)
