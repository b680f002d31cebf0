"""Choose the kernel that computes the gradient of a layer's values, by a written cost rule.

Costs are counted per output position, in multiply-adds of a matrix product:

* ``columns`` keeps the ``U`` distinct inputs that some neuron selects, multiplies the output's gradient with them, and
  picks: ``neurons * (U + NARROW)``, since narrow products do not reach full speed.
* ``gather`` keeps the same; for each chosen connection, it multiplies the gradient of its neuron with its input and
  sums: ``chosen * ENTRY``, bound by memory.
* ``dense`` computes the gradient of the whole weight, picks, and frees it: ``neurons * fan_in``, times ``GROUPED`` for
  a grouped convolution, whose products are narrow. It keeps all inputs.

Each kept number costs ``KEPT`` in addition. The constants of the CPU lie between measurements on two machines (README).
On an H200 a connection of the gather costs 265 multiply-adds in float32 and 4000 in bfloat16, and the type is unknown
before the first forward. The constants are fixed rather than measured at the start, since another route after a resume
would round differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

NARROW = 15
ENTRY = {'cpu': 60, 'cuda': 1000}
KEPT = 20
GROUPED = 4

MOSTLY = 0.75
"""Share of selected inputs above which saving all inputs by reference beats copying the selected ones."""

CHUNK = {'cpu': 2**18, 'cuda': 2**24}
"""Numbers that a gather holds at once: as many as fit a CPU cache; on a GPU, a small part of its memory."""


class GradientKernel(StrEnum):
    """A way to compute the gradient of the values."""

    COLUMNS = 'columns'
    GATHER = 'gather'
    DENSE = 'dense'
    FALLBACK = 'fallback'
    """torch's gradient of the whole weight, for an owner that does not compute natively."""


@dataclass(frozen=True)
class Route:
    """The kernel of one layer, and the share of the input that it saves.

    Args:
        kind: The kernel.
        kept: Maximum count of numbers saved for backward per position.
        inputs: Numbers that the layer reads per position.
        chosen: Trained numbers.
    """

    kind: GradientKernel
    kept: int
    inputs: int
    chosen: int

    def __str__(self) -> str:
        return f'{self.kind.value} ({self.kept}/{self.inputs} inputs kept)'


@dataclass(frozen=True)
class LayerCost:
    """The sizes of a layer that determine the costs of its routes.

    Args:
        neurons: Number of outputs.
        fan_in: Connections per output.
        distinct: Number of selected inputs: the width of a product with them.
        chosen: Trained connections.
        kept: Numbers to save per position for the selected inputs.
        inputs: Numbers to save per position for all inputs.
        device: Device type.
        grouped: Whether the layer is a grouped convolution.
    """

    neurons: int
    fan_in: int
    distinct: int
    chosen: int
    kept: int
    inputs: int
    device: str
    grouped: bool = False

    def costs(self) -> dict[GradientKernel, float]:
        """Cost per position of each kernel."""
        whole = self.neurons * self.fan_in * (GROUPED if self.grouped else 1)
        return {
            GradientKernel.COLUMNS: self.neurons * (self.distinct + NARROW) + KEPT * self.kept,
            GradientKernel.GATHER: self.chosen * ENTRY.get(self.device, ENTRY['cuda']) + KEPT * self.kept,
            GradientKernel.DENSE: whole + KEPT * self.inputs,
        }

    def route(self) -> Route:
        """The cheapest route."""
        costs = self.costs()
        kind = min(costs, key=lambda kind: costs[kind])
        return Route(kind, self.inputs if kind is GradientKernel.DENSE else self.kept, self.inputs, self.chosen)


def chunks(count: int, each: int, device: str) -> Iterator[slice]:
    """Cut ``count`` items of ``each`` numbers into parts of at most ``CHUNK`` numbers, at least one item each.

    A compiled graph serves any size, so its number of parts cannot depend on the size: it gets one part.
    """
    if torch.compiler.is_compiling():
        yield slice(None)
        return
    step = max(1, CHUNK.get(device, CHUNK['cuda']) // max(each, 1))
    for start in range(0, count, step):
        yield slice(start, start + step)


class RowPick:
    """Picks rows of a tensor along one dimension, without a copy if they are all rows in order."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self._all = torch.equal(rows, torch.arange(len(rows), device=rows.device))

    def __call__(self, x: Tensor, dim: int) -> Tensor:
        return x if self._all and x.shape[dim] == len(self.rows) else x.index_select(dim, self.rows)


def wide_type(x: Tensor) -> torch.dtype:
    """The type of sums of ``x``: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Inner products over batch and positions, ``[count]``, of two ``[batch, count, positions]``; overwrites ``b``."""
    return b.to(wide_type(a)).mul_(a).sum((0, 2))


def summed_product(a: Tensor, b: Tensor) -> Tensor:
    """Product ``[m, n]`` of ``[batch, m, positions]`` and ``[batch, n, positions]``, summed over the batch."""
    return torch.bmm(a, b.transpose(1, 2)).sum(0, dtype=wide_type(a))
