"""Plans of transposed convolutions: the gradient's windows meet the input's channels."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from .attach import Plan
from .conv import ConvPlan
from .conv_inputs import Kept, Taps, batched
from .conv_native import weight_gradient
from .picking import chunks, dots, wide_type
from .routes import Kind, Route, Work
from .weight import TrainedWeight
from .windows import Geometry, geometry_of, one_padding


def transposed_plan(owner: nn.Module, weight: TrainedWeight) -> Plan:
    """The cheapest plan of a transposed convolution."""
    geometry, groups = geometry_of(owner), int(owner.groups)  # type: ignore[arg-type]
    layout, area = weight.layout, prod(geometry.kernel)
    inputs = layout.shape[0]
    group = weight.rows // layout.shape[1]
    kept = Kept(weight.columns // area + group * (inputs // groups), inputs)
    distinct = len(kept) * area if groups == 1 else layout.fan_in * layout.neurons
    device = weight.rows.device.type
    work = Work(layout.neurons, layout.fan_in, distinct, len(weight), len(kept), inputs, device, groups > 1)
    route = work.route()
    if route.kind is Kind.COLUMNS and groups > 1:
        # A part of the channels would leave groups of unequal size, which the native gradient does not know.
        route = Route(Kind.DENSE, inputs, inputs, len(weight))
    if route.kind is Kind.GATHER:
        return TransposedGather(route, geometry, kept, weight)
    return TransposedProduct(route, geometry, kept if route.kind is Kind.COLUMNS else None, weight, groups)


class TransposedGather(ConvPlan):
    """Multiplies and adds up connection by connection."""

    def __init__(self, route: Route, geometry: Geometry, kept: Kept, weight: TrainedWeight) -> None:
        self.route, self._geometry, self._kept = route, geometry, kept
        offsets = torch.unravel_index(weight.columns % prod(geometry.kernel), geometry.kernel)
        self._taps = Taps(weight.rows, offsets)

    def keep(self, x: Tensor, bias: bool) -> Tensor:
        return self._kept.of(batched(x, self._geometry))

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy = batched(dy, self._geometry)
        windows, flat = self._geometry.windows(self._geometry.padded(dy), kept.shape[2:]), kept.flatten(2)
        total = [dy.new_zeros(0, dtype=wide_type(dy))]
        for part in chunks(len(self._kept.places), flat.shape[0] * flat.shape[2], dy.device.type):
            picked = flat.index_select(1, self._kept.places[part])
            total.append(dots(self._taps.read(windows, part).flatten(2), picked))
        return torch.cat(total), None


class TransposedProduct(ConvPlan):
    """The native gradient of the kept channels, which are all of them on the dense route; picks, and frees it."""

    def __init__(self, route: Route, geometry: Geometry, kept: Kept | None, weight: TrainedWeight, groups: int) -> None:
        self.route, self._geometry, self._kept, self._groups = route, geometry, kept, groups
        shape = weight.layout.shape
        self._shape = shape if kept is None else (len(kept), *shape[1:])
        self._flat = weight.flat
        if kept is not None:
            self._flat = kept.places * prod(shape[1:]) + weight.flat % prod(shape[1:])

    def keep(self, x: Tensor, bias: bool) -> Tensor:
        return x if self._kept is None else self._kept.of(batched(x, self._geometry))

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy, x = batched(dy, self._geometry), batched(kept, self._geometry)
        padding = one_padding(self._geometry.padding)
        assert padding is not None, 'a transposed convolution pads both sides alike'
        whole = weight_gradient(dy, x, self._shape, self._geometry, padding, self._groups, transposed=True)
        return whole.reshape(-1).index_select(0, self._flat), None
