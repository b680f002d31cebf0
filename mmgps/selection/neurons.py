"""Neurons: how the weight of a layer is read as a matrix with one row per output unit."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor


@dataclass(frozen=True)
class NeuronLayout:
    """The neurons of a weight, which is read as a matrix with one row per neuron.

    A neuron is one output unit: a row of a Linear, or an output channel of a plain or transposed convolution.

    Args:
        shape: Shape of the weight.
        transposed: Whether the weight is stored as ``[in, out / groups, *kernel]``, as in a transposed convolution.
        groups: Groups of a transposed convolution. A plain convolution needs none, as its weight is stored as
            ``[out, in / groups, *kernel]``.
    """

    shape: tuple[int, ...]
    transposed: bool = False
    groups: int = 1

    @property
    def neurons(self) -> int:
        return self.shape[1] * self.groups if self.transposed else self.shape[0]

    @property
    def fan_in(self) -> int:
        """Connections that enter one neuron."""
        return prod(self.shape) // self.neurons if self.neurons else 0

    def to_rows(self, weight: Tensor) -> Tensor:
        """Read a tensor of ``shape`` as ``[neurons, fan_in]``: a view where the memory layout allows one."""
        if not self.transposed:
            return weight.reshape(self.neurons, -1)
        grouped = weight.reshape(self.groups, self.shape[0] // self.groups, *self.shape[1:])
        return grouped.transpose(1, 2).reshape(self.neurons, -1)

    def from_rows(self, rows: Tensor) -> Tensor:
        """The inverse of :meth:`to_rows`."""
        if not self.transposed:
            return rows.reshape(self.shape)
        fan = self.shape[0] // self.groups
        grouped = rows.reshape(self.groups, self.shape[1], fan, *self.shape[2:])
        return grouped.transpose(1, 2).reshape(self.shape)
