"""The trained numbers of one weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmgps.selection import Connections, NeuronLayout


class TrainedWeight:
    """A frozen dense weight and the few of its numbers that are trained.

    The numbers live in a parameter of their own, ``values``: ``[neurons, k]`` where every neuron has the same count,
    else ``[chosen]``, in the order of :attr:`Connections.positions`, of the weight's type and device. It belongs to
    no module, so the state dict and the order of the module's parameters stay those of the base.

    Args:
        name: Name of the weight.
        dense: The weight.
        layout: Its neurons.
        connections: Which of its numbers are trained.
    """

    def __init__(self, name: str, dense: nn.Parameter, layout: NeuronLayout, connections: Connections) -> None:
        self.name, self.dense, self.layout = name, dense, layout
        self.rows = connections.rows.to(dense.device)
        """Neuron of each number, int64 ``[chosen]``, ascending."""
        self.columns = connections.columns.to(dense.device)
        """Its place among the neuron's inputs, int64 ``[chosen]``."""
        self.flat = logical_places(layout, connections.positions).to(dense.device)
        """Its place in the weight read in logical order, int64 ``[chosen]``."""
        self.values = nn.Parameter(dense.detach().reshape(-1)[self.flat].view(_shape(connections)))
        self._strides: tuple[int, ...] | None = None
        self._stored = self.flat

    def __len__(self) -> int:
        return len(self.flat)

    @torch.no_grad()
    def read(self) -> None:
        """Take ``values`` from the dense weight."""
        self.values.copy_(_storage(self.dense).index_select(0, self._places()).view_as(self.values))

    @torch.no_grad()
    def write(self) -> None:
        """Put ``values`` into the dense weight, in place; its other numbers keep their bits."""
        _storage(self.dense).index_copy_(0, self._places(), self.values.view(-1))

    def _places(self) -> Tensor:
        """Places in storage order, which is another one for weights that are channels-last."""
        if self._strides != self.dense.stride():
            self._strides = self.dense.stride()
            index = torch.unravel_index(self.flat, self.dense.shape)
            self._stored = torch.stack([i * s for i, s in zip(index, self._strides, strict=True)]).sum(0)
        return self._stored


def logical_places(layout: NeuronLayout, positions: Tensor) -> Tensor:
    """Flat places in the weight of flat positions in its rows."""
    if not layout.transposed:
        return positions
    order = layout.to_rows(torch.arange(layout.neurons * layout.fan_in).view(layout.shape))
    return order.reshape(-1)[positions.cpu()]


def _shape(connections: Connections) -> tuple[int, ...]:
    count = len(connections)
    per_neuron = torch.bincount(connections.rows, minlength=connections.neurons)
    equal = count > 0 and bool((per_neuron == per_neuron[0]).all())
    return (connections.neurons, count // connections.neurons) if equal else (count,)


def _storage(dense: Tensor) -> Tensor:
    """The numbers of ``dense`` in the order in which they lie in memory, as a view."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(dense.shape, dense.stride(), strict=True))
    return dense.detach().as_strided((extent,), (1,), dense.storage_offset())
