"""SAM's prompt encoder; a run without prompts uses one of its embeddings and the positions of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .image_encoder import LayerNorm2d

POINTS = 4
"""Background point, foreground point, and the two corners of a box."""


class Positions(nn.Module):
    """Fourier features of places in the unit square (Tancik et al., NeurIPS 2020), with fixed random frequencies.

    Args:
        dims: Features, half of them sines.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer('positional_encoding_gaussian_matrix', torch.randn(2, dims // 2))

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """The centres of the cells of a ``grid`` of rows and columns: ``[1, dims, *grid]``."""
        frequencies = self.positional_encoding_gaussian_matrix
        y, x = ((torch.arange(n, device=frequencies.device, dtype=frequencies.dtype) + 0.5) / n for n in grid)
        places = torch.stack([x.expand(grid), y[:, None].expand(grid)], -1)
        angles = 2 * math.pi * ((2 * places - 1) @ frequencies)
        return torch.cat([angles.sin(), angles.cos()], -1).permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """The parameters of SAM's prompt encoder, frozen, under the names of the published files.

    All are kept, those for points, boxes and masks too: a checkpoint then holds the whole of SAM, and can be taken back
    to a program that prompts. Nothing here is trained, as in the paper.

    Args:
        dims: Channels of the image's feature.
        mask_channels: Inner channels of the embedding of a mask.
    """

    def __init__(self, dims: int = 256, mask_channels: int = 16) -> None:
        super().__init__()
        self.pe_layer = Positions(dims)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dims) for _ in range(POINTS))
        self.not_a_point_embed = nn.Embedding(1, dims)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dims, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dims)
        self.requires_grad_(False)

    def forward(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Embed the absence of prompts.

        Args:
            grid: Rows and columns of the image's feature.

        Returns:
            Positions of the image ``[1, dims, *grid]`` and the embedding of no mask ``[1, dims, 1, 1]``.
        """
        return self.pe_layer(grid), self.no_mask_embed.weight[:, :, None, None]
