"""Where the chosen connections of a weight lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from mmgps.selection import Connections, NeuronLayout


class Places:
    """The chosen connections within one tensor, to be read and written without touching its other numbers.

    Args:
        dense: The weight.
        layout: Its neurons.
        connections: Which of its numbers are meant.
    """

    def __init__(self, dense: Tensor, layout: NeuronLayout, connections: Connections) -> None:
        self._dense = dense
        self.flat = logical_places(layout, connections.positions).to(dense.device)
        """Places in the weight read in logical order, int64 ``[chosen]``, in the order of the connections."""
        self._strides: tuple[int, ...] | None = None
        self._stored, self._numbers = self.flat, dense.detach()

    def take(self) -> Tensor:
        """The numbers at the places, ``[chosen]``."""
        self._look()
        return self._numbers.index_select(0, self._stored)

    def put(self, values: Tensor) -> None:
        """Write ``values`` ``[chosen]`` in place; the other numbers keep their bits."""
        self._look()
        self._numbers.index_copy_(0, self._stored, values)

    def _look(self) -> None:
        """See where the weight lies in memory by now: its numbers and the places in storage order.

        That is another order for weights that are channels-last.
        """
        dense = self._dense
        if self._strides == dense.stride() and self._numbers.data_ptr() == dense.data_ptr():
            return
        self._strides = dense.stride()
        index = torch.unravel_index(self.flat, dense.shape)
        self._stored = torch.stack([i * s for i, s in zip(index, self._strides, strict=True)]).sum(0)
        self._numbers = _storage(dense)


def logical_places(layout: NeuronLayout, positions: Tensor) -> Tensor:
    """Flat places in the weight of flat positions in its rows."""
    if not layout.transposed:
        return positions
    order = layout.to_rows(torch.arange(layout.neurons * layout.fan_in).view(layout.shape))
    return order.reshape(-1)[positions.cpu()]


def _storage(dense: Tensor) -> Tensor:
    """The numbers of ``dense`` in the order in which they lie in memory, as a view."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(dense.shape, dense.stride(), strict=True))
    return dense.detach().as_strided((extent,), (1,), dense.storage_offset())
