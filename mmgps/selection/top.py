"""The largest entries of each row, by one written rule for ties."""

from __future__ import annotations

from torch import Tensor


def top_per_row(scores: Tensor, k: int) -> Tensor:
    """Flat positions of the ``k`` largest scores of every row, ascending.

    Among equal scores the lowest column wins, so a row of zeros gives its first ``k`` columns. ``torch.topk`` alone
    promises no order among ties, and differs between devices.

    Args:
        scores: ``[rows, columns]``, without NaN.
        k: Entries per row; clamped to ``columns``.

    Returns:
        Positions in the flattened scores, int64 ``[rows * min(k, columns)]``.
    """
    columns = scores.shape[1]
    k = min(k, columns)
    smallest = scores.topk(k, dim=1).values[:, -1:]
    picked = scores >= smallest
    crowded = (picked.sum(1) > k).nonzero().flatten()
    if len(crowded):
        part, bound = scores[crowded], smallest[crowded]
        above, tied = part > bound, part == bound
        room = k - above.sum(1, keepdim=True)
        picked[crowded] = above | (tied & (tied.cumsum(1) <= room))
    return picked.flatten().nonzero().flatten()
