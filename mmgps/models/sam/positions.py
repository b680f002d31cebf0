"""Positions of any grid from the tables of the grid that SAM was trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Absolute position embeddings for another grid, bicubic; the table itself where the grid is its own.

    SAM is only ever run on its own grid; bicubic is what plain detection ViTs do (Li et al., ECCV 2022).

    Args:
        table: ``[1, rows, columns, dims]``.
        grid: Rows and columns wanted.

    Returns:
        ``[1, *grid, dims]``.
    """
    if table.shape[1:3] == grid:
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2), size=grid, mode='bicubic', align_corners=False)
    return resized.permute(0, 2, 3, 1)


def relative_embeddings(table: Tensor, length: int) -> Tensor:
    """The embedding of each pair of positions along one axis.

    Args:
        table: ``[2 * n - 1, dims]``, the embeddings of the distances from ``-(n - 1)`` to ``n - 1``. Where ``n`` is
            not ``length``, it is interpolated linearly to the distances of ``length``, as SAM does.
        length: Positions along the axis.

    Returns:
        ``[length, length, dims]``: query position, key position.
    """
    distances = 2 * length - 1
    if len(table) != distances:
        table = F.interpolate(table.t()[None], size=distances, mode='linear', align_corners=False)[0].t()
    at = torch.arange(length, device=table.device)
    return table[at[:, None] - at[None, :] + length - 1]
