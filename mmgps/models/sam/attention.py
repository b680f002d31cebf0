"""Attention with relative positions that needs no more memory than attention without them.

SAM adds the products ``q . R_h[i - m]`` and ``q . R_w[j - n]`` to the score of query ``q`` at ``(i, j)`` and key ``k``
at ``(m, n)``. A tensor of all scores of the 64 x 64 grid takes 0.8 GB in each global block of ViT-B, and its gradient
takes as much. But the sum is one scalar product of longer vectors: append to the query its products with the
embeddings of every row and every column, and to the key the one-hot code of its row and its column. So
``scaled_dot_product_attention`` runs without a mask, and its fused kernels never store the scores.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALIGNMENT = 8
"""The fused kernels need vectors whose length is a multiple of this."""


class RelativeAttention(nn.Module):
    """Self-attention over a grid of tokens, with decomposed relative positions (Li et al., MViTv2, CVPR 2022).

    Args:
        dims: Width of the tokens.
        num_heads: Number of heads.
        length: Side of the square grid of the tables; other grids interpolate them.
    """

    def __init__(self, dims: int, num_heads: int, length: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * length - 1, dims // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * length - 1, dims // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, H, W, dims]`` to the same shape."""
        batch, height, width, dims = x.shape
        packed = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        rows, columns = relative_embeddings(self.rel_pos_h, height), relative_embeddings(self.rel_pos_w, width)
        y = relative_attention(query, key, value, rows, columns)
        return self.proj(y.transpose(1, 2).reshape(batch, height, width, dims))


def relative_attention(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute attention with the scores ``scale * q . k + q . rows[i, m] + q . columns[j, n]``.

    Args:
        query: ``[B, heads, H * W, dims]``, row by row; the scale is ``dims ** -0.5``.
        key: Of the same shape.
        value: Of the same shape.
        rows: ``[H, H, dims]``, from :func:`relative_embeddings`.
        columns: ``[W, W, dims]``.

    Returns:
        ``[B, heads, H * W, dims]``.
    """
    height, width, dims = len(rows), len(columns), query.shape[-1]
    grid = query.unflatten(2, (height, width))
    by_row = torch.einsum('bnijc,imc->bnijm', grid, rows.to(query.dtype)).flatten(2, 3)
    by_column = torch.einsum('bnijc,jmc->bnijm', grid, columns.to(query.dtype)).flatten(2, 3)
    padding = -(dims + height + width) % ALIGNMENT
    longer = F.pad(torch.cat([query * dims**-0.5, by_row, by_column], -1), (0, padding))
    code = F.pad(_places(height, width, key), (0, padding))
    placed = torch.cat([key, code.expand(*key.shape[:2], -1, -1)], -1)
    # All three have the same length; otherwise torch uses neither its CPU kernel nor CUDA's flash kernel.
    value = F.pad(value, (0, height + width + padding))
    return F.scaled_dot_product_attention(longer, placed, value, scale=1.0)[..., :dims]


def relative_embeddings(table: Tensor, length: int) -> Tensor:
    """Return the embedding of each pair of positions along one axis.

    Args:
        table: ``[2 * n - 1, dims]``, the embeddings of the distances from ``-(n - 1)`` to ``n - 1``. If ``n`` is not
            ``length``, it is interpolated linearly, as in SAM.
        length: Number of positions along the axis.

    Returns:
        ``[length, length, dims]``: query position, key position.
    """
    distances = 2 * length - 1
    if len(table) != distances:
        table = F.interpolate(table.t()[None], size=distances, mode='linear', align_corners=False)[0].t()
    at = torch.arange(length, device=table.device)
    return table[at[:, None] - at[None, :] + length - 1]


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """Return ``[H * W, H + W]`` with ones at the row and at the column of each place of the grid."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device)[:, None].expand(-1, width, -1)
    columns = torch.eye(width, dtype=like.dtype, device=like.device)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1).flatten(0, 1)
