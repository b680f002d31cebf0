"""Picking the chosen connections, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = {'cpu': 2**18, 'cuda': 2**24}
"""Numbers that a gather holds at once: a cache on the CPU, a fraction of the memory elsewhere."""


def chunks(count: int, each: int, device: str) -> Iterator[slice]:
    """Cut ``count`` items of ``each`` numbers into parts of at most ``CHUNK`` numbers, at least one item each.

    A compiled graph serves any size, so it cannot have a number of parts that depends on it: it gets one.
    """
    if torch.compiler.is_compiling():
        yield slice(None)
        return
    step = max(1, CHUNK.get(device, CHUNK['cuda']) // max(each, 1))
    for start in range(0, count, step):
        yield slice(start, start + step)


class RowPick:
    """Rows of a tensor along one dimension; nothing is copied where they are all of them, in order."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self._all = torch.equal(rows, torch.arange(len(rows), device=rows.device))

    def __call__(self, x: Tensor, dim: int) -> Tensor:
        return x if self._all and x.shape[dim] == len(self.rows) else x.index_select(dim, self.rows)


def wide_type(x: Tensor) -> torch.dtype:
    """The type to add up in: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """``[batch, count, positions]`` twice to the inner products over batch and positions, ``[count]``.

    ``b`` is overwritten.
    """
    return b.to(wide_type(a)).mul_(a).sum((0, 2))


def summed_product(a: Tensor, b: Tensor) -> Tensor:
    """``[batch, m, positions]`` and ``[batch, n, positions]`` to the product summed over the batch, ``[m, n]``."""
    return torch.bmm(a, b.transpose(1, 2)).sum(0, dtype=wide_type(a))
