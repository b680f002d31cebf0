"""The trained numbers of one weight, and where they lie in its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmgps.selection import Connections, NeuronLayout, Parameter


class TrainedWeight:
    """A frozen dense weight and the few of its numbers that are trained.

    The numbers live in a parameter of their own, ``values``: ``[neurons, k]`` where every neuron has the same count,
    else ``[chosen]``, in the order of :attr:`Connections.positions`, of the weight's type and device. It belongs to
    no module, so the state dict and the order of the module's parameters stay those of the base.

    The numbers are in two places, which agree between steps. What they agree on is noted, so that it can be told which
    of the two somebody changed since.

    Args:
        parameter: The weight, its owner and its neurons.
        connections: Which of its numbers are trained.
    """

    def __init__(self, parameter: Parameter, connections: Connections) -> None:
        self.name, self.layout = parameter.name, parameter.neurons
        self.owner, self.attribute, self._connections = parameter.owner, parameter.attribute, connections
        self._find_places()
        self.values = nn.Parameter(self._places.take().view(_shape(connections)))
        self.agreed = self.values.detach().clone()
        """The numbers that values and weight held when one was last copied to the other."""
        self._seen = self._marks()
        self._watch: RemovableHandle | None = None

    @property
    def dense(self) -> nn.Parameter:
        """The weight that its owner holds now: a sharded weight is another tensor within the forward pass."""
        found = self.owner._parameters[self.attribute]
        assert found is not None
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def follow(self) -> None:
        """Go where the dense weight went: to another device, or into shards on several processes."""
        self._find_places()
        self.values.data = self.values.data.to(self.dense.device)
        self.agreed = self.agreed.to(self.dense.device)

    @torch.no_grad()
    def read(self) -> None:
        """Take ``values`` from the dense weight."""
        self.values.copy_(self._places.take().view_as(self.values))
        self._note()

    @torch.no_grad()
    def write(self) -> None:
        """Put ``values`` into the dense weight, in place; its other numbers keep their bits."""
        self._places.put(self.values.view(-1))
        self._note()

    def _note(self) -> None:
        self.agreed = self.values.detach().clone()
        self._seen = self._marks()

    def _marks(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """What tells of values and weight that they were written, as far as torch counts it, or lie elsewhere."""
        dense = self.dense  # of one that is sharded nothing is told
        of_dense = (0, 0) if is_sharded(dense) else (dense._version, dense.data_ptr())
        return (self.values._version, self.values.data_ptr()), of_dense

    @property
    def values_touched(self) -> bool:
        """Whether somebody wrote into ``values`` since they were read or written; ``values.data`` aside."""
        return self.values._version != self._seen[0][0]

    @property
    def touched(self) -> bool:
        """Whether somebody wrote into either since one was last copied to the other, as far as torch counts it."""
        return self._marks() != self._seen

    def in_dense(self) -> Tensor:
        """The chosen numbers of the dense weight, in the shape of ``values``."""
        return self._places.take().view_as(self.values)

    def watch(self) -> None:
        """Let the dense weight require a gradient, of which ``values`` get the chosen numbers.

        The forward that is installed on a layer computes with the weight as a constant. So what arrives here comes
        from whatever else reads it: an owner that computes in a way of its own, the module around it, a loss.
        """
        dense = self.dense
        dense.grad = None
        dense.requires_grad_(True)
        self._watch = _after_accumulating(dense, self.collect)

    def after_backward(self, action: Callable[[], None]) -> RemovableHandle:
        """Call ``action`` whenever ``values`` have received a gradient, until the handle is removed."""
        return _after_accumulating(self.values, lambda _: action())

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    @torch.no_grad()
    def collect(self, dense: Tensor) -> None:
        """Add the chosen numbers of the gradient of ``dense`` to that of ``values``, and free it."""
        found, dense.grad = dense.grad, None
        if found is None or not self.values.requires_grad:
            return
        whole = found.full_tensor() if is_sharded(found) else found  # type: ignore[attr-defined]
        picked = whole.reshape(-1).index_select(0, self.flat).view_as(self.values)
        torch.autograd.backward([self.values], [picked])  # and whoever watches the values is told

    @property
    def replaced(self) -> bool:
        """Whether the owner has another parameter than the one that this was built for, or that it followed last.

        One that is sharded is another within the forward pass and comes back after it: False.
        """
        return self.dense is not self._found and not is_sharded(self._found)

    def _find_places(self) -> None:
        dense, connections = self.dense, self._connections
        self._found = dense
        self.rows = connections.rows.to(dense.device)
        """Neuron of each number, int64 ``[chosen]``, ascending."""
        self.columns = connections.columns.to(dense.device)
        """Its place among the neuron's inputs, int64 ``[chosen]``."""
        self._places = (ShardedWeightIndex if is_sharded(dense) else WeightIndex)(dense, self.layout, connections)
        self.flat = self._places.flat
        """Its place in the weight read in logical order, int64 ``[chosen]``."""


def _after_accumulating(value: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    handle: RemovableHandle = value.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
    return handle


def is_sharded(value: Tensor) -> bool:
    """Whether ``value`` is a ``DTensor``, of which this process holds a part."""
    return hasattr(value, 'to_local')


class ShardedWeightIndex:
    """Reads and writes the chosen connections of a weight that is sharded along one dimension, as in FSDP.

    Every process holds all numbers to write, and writes those in its own shard.

    Args:
        dense: The weight, a ``DTensor``; every process holds one run of ``ceil(size / processes)`` slices of it.
        layout: Its neurons.
        connections: The chosen connections.
    """

    def __init__(self, dense: Any, layout: NeuronLayout, connections: Connections) -> None:
        self._dense = dense
        self.flat = logical_index(layout, connections.positions).to(dense.device)
        """Positions in the whole weight read in logical order, int64 ``[chosen]``, in the order of the connections."""
        local, (placement,) = dense.to_local(), dense.placements
        cut, mesh = placement.dim, dense.device_mesh
        index = list(torch.unravel_index(self.flat, dense.shape))
        index[cut] = index[cut] - mesh.get_local_rank() * -(-dense.shape[cut] // mesh.size())
        inside = (index[cut] >= 0) & (index[cut] < local.shape[cut])
        self._mine = inside.nonzero().view(-1)
        strides = zip(index, local.stride(), strict=True)
        self._local = torch.stack([i[self._mine] * stride for i, stride in strides]).sum(0)

    @torch.no_grad()
    def take(self) -> Tensor:
        """The chosen numbers, ``[chosen]``. All processes must call it: it gathers the weight."""
        whole: Tensor = self._dense.full_tensor()
        return whole.reshape(-1).index_select(0, self.flat)

    @torch.no_grad()
    def put(self, values: Tensor) -> None:
        """Write the ``values`` ``[chosen]`` of the own shard in place; other numbers keep their bits."""
        self._dense.to_local().view(-1).index_copy_(0, self._local, values.index_select(0, self._mine))


class WeightIndex:
    """Reads and writes the chosen connections of one tensor without touching its other numbers.

    Args:
        dense: The weight.
        layout: Its neurons.
        connections: The chosen connections.
    """

    def __init__(self, dense: Tensor, layout: NeuronLayout, connections: Connections) -> None:
        self._dense = dense
        self.flat = logical_index(layout, connections.positions).to(dense.device)
        """Positions in the weight read in logical order, int64 ``[chosen]``, in the order of the connections."""
        self._strides: tuple[int, ...] | None = None
        self._stored, self._numbers = self.flat, dense.detach()

    def take(self) -> Tensor:
        """The chosen numbers, ``[chosen]``."""
        self._look()
        return self._numbers.index_select(0, self._stored)

    def put(self, values: Tensor) -> None:
        """Write ``values`` ``[chosen]`` in place; the other numbers keep their bits."""
        self._look()
        self._numbers.index_copy_(0, self._stored, values)

    def _look(self) -> None:
        """Update the positions in storage order if the memory or the strides of the weight changed.

        Storage order differs from logical order in channels-last weights.
        """
        dense = self._dense
        if self._strides == dense.stride() and self._numbers.data_ptr() == dense.data_ptr():
            return
        self._strides = dense.stride()
        index = torch.unravel_index(self.flat, dense.shape)
        self._stored = torch.stack([i * s for i, s in zip(index, self._strides, strict=True)]).sum(0)
        self._numbers = _storage(dense)


def logical_index(layout: NeuronLayout, positions: Tensor) -> Tensor:
    """Flat positions in the weight from flat positions in its rows."""
    if not layout.transposed:
        return positions
    order = layout.to_rows(torch.arange(layout.neurons * layout.fan_in).view(layout.shape))
    return order.reshape(-1)[positions.cpu()]


def _storage(dense: Tensor) -> Tensor:
    """A flat view of ``dense`` in storage order."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(dense.shape, dense.stride(), strict=True))
    return dense.detach().as_strided((extent,), (1,), dense.storage_offset())


def _shape(connections: Connections) -> tuple[int, ...]:
    count = len(connections)
    per_neuron = torch.bincount(connections.rows, minlength=connections.neurons)
    equal = count > 0 and bool((per_neuron == per_neuron[0]).all())
    return (connections.neurons, count // connections.neurons) if equal else (count,)
