"""A grid of tokens as square windows, and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def to_windows(x: Tensor, side: int) -> Tensor:
    """Cut ``[B, H, W, C]`` into windows, with zeros to the right and below where it does not come out even.

    Returns:
        ``[B * windows, side, side, C]``.
    """
    _, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def from_windows(windows: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`to_windows`: ``[B, *grid, C]``, without what was padded."""
    side, channels = windows.shape[1], windows.shape[3]
    rows, columns = (-(-length // side) for length in grid)
    x = windows.reshape(-1, rows, columns, side, side, channels).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : grid[0], : grid[1]]
