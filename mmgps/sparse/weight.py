"""The trained numbers of one weight."""

from __future__ import annotations

import torch
from torch import nn

from mmgps.selection import Connections, Parameter

from .places import Places
from .shard import ShardPlaces, is_sharded


class TrainedWeight:
    """A frozen dense weight and the few of its numbers that are trained.

    The numbers live in a parameter of their own, ``values``: ``[neurons, k]`` where every neuron has the same count,
    else ``[chosen]``, in the order of :attr:`Connections.positions`, of the weight's type and device. It belongs to
    no module, so the state dict and the order of the module's parameters stay those of the base.

    Args:
        parameter: The weight, its owner and its neurons.
        connections: Which of its numbers are trained.
    """

    def __init__(self, parameter: Parameter, connections: Connections) -> None:
        self.name, self.layout = parameter.name, parameter.neurons
        self._owner, self._attribute, self._connections = parameter.owner, parameter.attribute, connections
        self._find_places()
        self.values = nn.Parameter(self._places.take().view(_shape(connections)))

    @property
    def dense(self) -> nn.Parameter:
        """The weight that its owner has now: one that is sharded is another tensor within the forward pass."""
        found = self._owner._parameters[self._attribute]
        assert found is not None
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def follow(self) -> None:
        """Go where the dense weight went: to another device, or into shards on several processes."""
        self._find_places()
        self.values.data = self.values.data.to(self.dense.device)

    @torch.no_grad()
    def read(self) -> None:
        """Take ``values`` from the dense weight."""
        self.values.copy_(self._places.take().view_as(self.values))

    @torch.no_grad()
    def write(self) -> None:
        """Put ``values`` into the dense weight, in place; its other numbers keep their bits."""
        self._places.put(self.values.view(-1))

    def _find_places(self) -> None:
        dense, connections = self.dense, self._connections
        self.rows = connections.rows.to(dense.device)
        """Neuron of each number, int64 ``[chosen]``, ascending."""
        self.columns = connections.columns.to(dense.device)
        """Its place among the neuron's inputs, int64 ``[chosen]``."""
        self._places = (ShardPlaces if is_sharded(dense) else Places)(dense, self.layout, connections)
        self.flat = self._places.flat
        """Its place in the weight read in logical order, int64 ``[chosen]``."""


def _shape(connections: Connections) -> tuple[int, ...]:
    count = len(connections)
    per_neuron = torch.bincount(connections.rows, minlength=connections.neurons)
    equal = count > 0 and bool((per_neuron == per_neuron[0]).all())
    return (connections.neurons, count // connections.neurons) if equal else (count,)
