"""SAM's image encoder as a backbone of mmseg (Kirillov et al., Segment Anything, ICCV 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmgps.registry import MODELS

from .attention import RelativeAttention


@dataclass(frozen=True)
class SAMSize:
    """Size of an image encoder; the rest of SAM is the same for all sizes.

    Args:
        embed_dims: Width of the tokens.
        depth: Number of blocks.
        num_heads: Heads of each attention.
        global_blocks: Indices from 0 of the blocks that attend over the whole image; the others attend within windows.
    """

    embed_dims: int
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]


SIZES = {
    'vit_b': SAMSize(768, 12, 12, (2, 5, 8, 11)),
    'vit_l': SAMSize(1024, 24, 16, (5, 11, 17, 23)),
    'vit_h': SAMSize(1280, 32, 16, (7, 15, 23, 31)),
}


def size_of(arch: str | dict) -> SAMSize:
    """Return the size called ``arch``, or make it from a dict with the fields of :class:`SAMSize`.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(arch, dict):
        return SAMSize(**arch)
    if arch not in SIZES:
        raise ValueError(
            f'no size of SAM is called {arch!r}; there are {", ".join(SIZES)}, or give a dict with embed_dims, depth, '
            'num_heads and global_blocks'
        )
    return SIZES[arch]


def to_windows(x: Tensor, side: int) -> Tensor:
    """Cut ``[B, H, W, C]`` into windows, after padding the right and the bottom with zeros to a multiple of ``side``.

    Returns:
        ``[B * windows, side, side, C]``.
    """
    _, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def from_windows(windows: Tensor, grid: tuple[int, int]) -> Tensor:
    """Invert :func:`to_windows`: return ``[B, *grid, C]`` without the padding."""
    side, channels = windows.shape[1], windows.shape[3]
    rows, columns = (-(-length // side) for length in grid)
    x = windows.reshape(-1, rows, columns, side, side, channels).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : grid[0], : grid[1]]


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of ``[B, C, H, W]``, separately at each place."""

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


class PatchEmbed(nn.Module):
    """Convolution from ``[B, 3, H, W]`` to tokens ``[B, H / side, W / side, dims]``."""

    def __init__(self, side: int, dims: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dims, side, side)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Attention, within windows or over the whole grid, and an MLP; each follows a norm and has a residual.

    Args:
        dims: Width of the tokens.
        num_heads: Heads of the attention.
        mlp_ratio: Width of the MLP divided by ``dims``.
        window: Side of the windows in tokens; 0 for the whole grid.
        length: Side of the grid of the relative positions.
    """

    def __init__(self, dims: int, num_heads: int, mlp_ratio: float, window: int, length: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dims, eps=1e-6)
        self.attn = RelativeAttention(dims, num_heads, window or length)
        self.norm2 = nn.LayerNorm(dims, eps=1e-6)
        self.mlp = MLPBlock(dims, int(dims * mlp_ratio), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, H, W, dims]`` to the same shape."""
        y = self.norm1(x)
        if self.window:
            y = from_windows(self.attn(to_windows(y, self.window)), (x.shape[1], x.shape[2]))
        else:
            y = self.attn(y)
        x = x + y
        return x + self.mlp(self.norm2(x))


@MODELS.register_module()
class SAMImageEncoder(BaseModule):
    """SAM's image encoder: a ViT with windowed and global attention, and a neck.

    Its parameters have the names of the published files. The tables of positions keep the image size of SAM's training;
    other images interpolate them, so one file serves every size.

    Args:
        arch: ``'vit_b'``, ``'vit_l'``, ``'vit_h'``, or a dict with the fields of :class:`SAMSize`.
        img_size: Side in pixels of the images for which the tables of positions are made.
        patch_size: Side in pixels of a token.
        window_size: Side in tokens of the windows.
        mlp_ratio: Width of the MLPs divided by that of the tokens.
        out_channels: Channels of the feature.
        with_cp: Keep only the input of each block for the backward pass, and recompute the rest.
        init_cfg: As for every mmengine module. ``mmgps.SAMPretrained`` in the ``init_cfg`` of the segmentor loads the
            weights of a whole SAM.
    """

    def __init__(
        self,
        arch: str | dict = 'vit_b',
        img_size: int = 1024,
        patch_size: int = 16,
        window_size: int = 14,
        mlp_ratio: float = 4,
        out_channels: int = 256,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        size, length = size_of(arch), img_size // patch_size
        self.patch_size, self.with_cp = patch_size, with_cp
        self.patch_embed = PatchEmbed(patch_size, size.embed_dims)
        self.pos_embed = nn.Parameter(torch.zeros(1, length, length, size.embed_dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        windows = [0 if at in size.global_blocks else window_size for at in range(size.depth)]
        self.blocks = nn.ModuleList(
            Block(size.embed_dims, size.num_heads, mlp_ratio, window, length) for window in windows
        )
        self.neck = nn.Sequential(
            nn.Conv2d(size.embed_dims, out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Encode images.

        Args:
            x: ``[B, 3, H, W]``, normalised.

        Returns:
            One feature of ``[B, out_channels, H / patch_size, W / patch_size]``.

        Raises:
            ValueError: If a side of the images is not a multiple of the patch size.
        """
        if any(side % self.patch_size for side in x.shape[-2:]):
            raise ValueError(
                f'images of {tuple(x.shape[-2:])} do not divide into patches of {self.patch_size} pixels; set '
                f'size_divisor={self.patch_size}, or size, in the data_preprocessor (its test_cfg too)'
            )
        x = self.patch_embed(x)
        x = x + resize_positions(self.pos_embed, (x.shape[1], x.shape[2])).to(x.dtype)
        recompute = self.with_cp and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return (self.neck(x.permute(0, 3, 1, 2)),)


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Interpolate absolute position embeddings to another grid; the table's own grid returns the table itself.

    SAM itself uses only its own grid. The bicubic interpolation follows plain detection ViTs (Li et al., ECCV 2022).

    Args:
        table: ``[1, rows, columns, dims]``.
        grid: Rows and columns of the result.

    Returns:
        ``[1, *grid, dims]``.
    """
    if table.shape[1:3] == grid:
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2), size=grid, mode='bicubic', align_corners=False)
    return resized.permute(0, 2, 3, 1)
