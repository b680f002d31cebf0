"""The trained numbers of one weight, and their positions in its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmgps.selection import Connections, NeuronLayout, Parameter


class TrainedWeight:
    """A frozen dense weight, and a parameter with the few of its numbers that are trained.

    The parameter, ``values``, has the weight's type and device. It is ``[neurons, k]`` if every neuron has the same
    count, else ``[chosen]``, in the order of :attr:`Connections.positions`.

    The numbers exist in both places, which agree between steps. A copy of them shows which of the two changed since.

    Args:
        parameter: The weight, its owner and its neurons.
        connections: The trained connections.
    """

    def __init__(self, parameter: Parameter, connections: Connections) -> None:
        self.name, self.layout = parameter.name, parameter.neurons
        self.owner, self.attribute, self._connections = parameter.owner, parameter.attribute, connections
        self._build_index()
        self.values = nn.Parameter(self._index.take().view(_shape(connections)))
        self.agreed = self.values.detach().clone()
        """The numbers of both when one was last copied to the other."""
        self._seen = self._marks()
        self._watch: RemovableHandle | None = None

    @property
    def dense(self) -> nn.Parameter:
        """The weight that its owner holds now; during forward, a sharded weight is another tensor."""
        found = self.owner._parameters[self.attribute]
        assert found is not None
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def follow(self) -> None:
        """Follow the dense weight to another device, or into shards on several processes."""
        self._build_index()
        self.values.data = self.values.data.to(self.dense.device)
        self.agreed = self.agreed.to(self.dense.device)

    @torch.no_grad()
    def read(self) -> None:
        """Copy the chosen numbers of the dense weight into ``values``."""
        self.values.copy_(self.in_dense())
        self._note()

    @torch.no_grad()
    def write(self) -> None:
        """Copy ``values`` into the dense weight in place; its other numbers keep their bits."""
        self._index.put(self.values.view(-1))
        self._note()

    def _note(self) -> None:
        self.agreed = self.values.detach().clone()
        self._seen = self._marks()

    def _marks(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Version and address of values and weight; they show writes that torch counts, and a move to other memory."""
        dense = self.dense  # a sharded weight shows neither
        of_dense = (0, 0) if is_sharded(dense) else (dense._version, dense.data_ptr())
        return (self.values._version, self.values.data_ptr()), of_dense

    @property
    def values_touched(self) -> bool:
        """True if ``values`` were written since the last copy, other than through ``values.data``."""
        return self.values._version != self._seen[0][0]

    @property
    def touched(self) -> bool:
        """True if values or weight were written since the last copy, as far as torch counts it."""
        return self._marks() != self._seen

    def in_dense(self) -> Tensor:
        """The chosen numbers of the dense weight, in the shape of ``values``."""
        return self._index.take().view_as(self.values)

    def watch(self) -> None:
        """Make the dense weight require a gradient, and pass the chosen numbers of it on to ``values``.

        An installed forward uses the weight as a constant. So these gradients come from other readers of the weight: an
        owner that does not compute natively, the module around it, or a loss.
        """
        dense = self.dense
        dense.grad = None
        dense.requires_grad_(True)
        self._watch = _after_accumulating(dense, self.collect)

    def after_backward(self, action: Callable[[], None]) -> RemovableHandle:
        """Call ``action`` after each gradient that ``values`` receive, until the handle is removed."""
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
        torch.autograd.backward([self.values], [picked])  # runs the hooks of values too

    @property
    def replaced(self) -> bool:
        """True if the owner holds another parameter than at construction or the last :meth:`follow`.

        False for a sharded weight, which is another tensor during forward only.
        """
        return self.dense is not self._found and not is_sharded(self._found)

    def _build_index(self) -> None:
        dense, connections = self.dense, self._connections
        self._found = dense
        self.rows = connections.rows.to(dense.device)
        """Neuron of each number, int64 ``[chosen]``, ascending."""
        self.columns = connections.columns.to(dense.device)
        """Input of each number within its neuron, int64 ``[chosen]``."""
        self._index = (ShardedWeightIndex if is_sharded(dense) else WeightIndex)(dense, self.layout, connections)
        self.flat = self._index.flat
        """Position of each number in the weight read in logical order, int64 ``[chosen]``."""


def _after_accumulating(value: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    handle: RemovableHandle = value.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
    return handle


def is_sharded(value: Tensor) -> bool:
    """True if ``value`` is a ``DTensor``."""
    return hasattr(value, 'to_local')


class ShardedWeightIndex:
    """Reads and writes the chosen connections of a weight that is sharded along one dimension, as in FSDP.

    Every process holds all numbers, and writes those that lie in its own shard.

    Args:
        dense: The weight, a ``DTensor``; every process holds ``ceil(size / processes)`` consecutive slices of it.
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
        """The chosen numbers, ``[chosen]``. It gathers the weight, so all processes must call it."""
        whole: Tensor = self._dense.full_tensor()
        return whole.reshape(-1).index_select(0, self.flat)

    @torch.no_grad()
    def put(self, values: Tensor) -> None:
        """Write those of ``values`` ``[chosen]`` that lie in the own shard in place; other numbers keep their bits."""
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
        self._update()
        return self._numbers.index_select(0, self._stored)

    def put(self, values: Tensor) -> None:
        """Write ``values`` ``[chosen]`` in place; the other numbers keep their bits."""
        self._update()
        self._numbers.index_copy_(0, self._stored, values)

    def _update(self) -> None:
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
    """Convert flat positions in the rows of a weight into flat positions in the weight."""
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
