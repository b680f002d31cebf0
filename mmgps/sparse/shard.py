"""Where the chosen connections of a weight lie that is spread over processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmgps.selection import Connections, NeuronLayout

from .places import logical_places


def is_sharded(value: Tensor) -> bool:
    """Whether ``value`` is a ``DTensor``, of which this process holds a part."""
    return hasattr(value, 'to_local')


class ShardPlaces:
    """The chosen connections within one weight that is cut along one dimension, as FSDP does it.

    Every process has all numbers that are to be written, and writes those that lie in its own part.

    Args:
        dense: The weight, a ``DTensor``; every process holds one run of ``ceil(size / processes)`` slices of it.
        layout: Its neurons.
        connections: Which of its numbers are meant.
    """

    def __init__(self, dense: Any, layout: NeuronLayout, connections: Connections) -> None:
        self._dense = dense
        self.flat = logical_places(layout, connections.positions).to(dense.device)
        """Places in the whole weight read in logical order, int64 ``[chosen]``, in the order of the connections."""
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
        """The numbers at the places, ``[chosen]``. All processes have to ask: the weight is gathered for it."""
        whole: Tensor = self._dense.full_tensor()
        return whole.reshape(-1).index_select(0, self.flat)

    @torch.no_grad()
    def put(self, values: Tensor) -> None:
        """Write those of ``values`` ``[chosen]`` that belong here, in place; the other numbers keep their bits."""
        self._dense.to_local().view(-1).index_copy_(0, self._local, values.index_select(0, self._mine))
