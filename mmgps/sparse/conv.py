"""Train connections of plain and transposed convolutions: the forward, and plans for the gradient.

The native operation computes the gradient of the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.rewiring import OwnForward

from .attach import GradientPlan, attach, constant, needs_grad
from .conv_inputs import Geometry, Kept, Source, Taps, batched, geometry_of, one_padding, weight_gradient
from .routes import GradientKernel, LayerCost, Route, chunks, dots, summed_product, wide_type
from .weight import TrainedWeight

FEW = 16
"""Factor by which a product may hold more numbers at once than a gather."""


class ConvForward(OwnForward):
    """The forward of one convolution, transposed or not, while numbers of its weight are trained.

    Args:
        owner: The layer.
        values: The trained numbers.
        plan: Computes their gradient.
    """

    def __init__(self, owner: nn.Module, values: nn.Parameter, plan: GradientPlan) -> None:
        super().__init__(owner)
        self._layer: Any = owner
        self._values, self.plan = values, plan

    def __call__(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        layer, weight = self._layer, constant(self._layer.weight)
        if layer.transposed:
            y = _transposed(layer, input, weight, output_size)
        else:
            y = layer._conv_forward(input, weight, layer.bias)
        return attach(y, input, self._values, None, self.plan) if needs_grad(self._values) else y


def _transposed(layer: Any, x: Tensor, weight: Tensor, output_size: Sequence[int] | None) -> Tensor:
    """The transposed convolution, computed as in ``nn.ConvTranspose1d``, ``2d`` and ``3d``."""
    dims, stride, padding = len(layer.kernel_size), layer.stride, layer.padding
    beyond = layer._output_padding(x, output_size, stride, padding, layer.kernel_size, dims, layer.dilation)
    function: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    return function(x, weight, layer.bias, stride, padding, beyond, layer.groups, layer.dilation)


def conv_plan(owner: nn.Module, weight: TrainedWeight) -> GradientPlan:
    """The cheapest plan of a convolution of any dimension, stride, dilation, padding and groups."""
    geometry, groups, neurons = geometry_of(owner), int(owner.groups), weight.layout.neurons  # type: ignore[arg-type]
    area = prod(geometry.kernel)
    inputs = weight.layout.fan_in // area * groups
    group = weight.rows // (neurons // groups)
    columns = weight.columns + group * weight.layout.fan_in
    distinct, places = torch.unique(columns, return_inverse=True)
    kept = Kept(distinct // area, inputs)
    early = geometry.plain or len(distinct) <= len(kept) * prod(geometry.stride)
    count = -(-len(distinct) // prod(geometry.stride)) if early else len(kept)
    work = LayerCost(
        neurons, weight.layout.fan_in, len(distinct), len(weight), count, inputs, weight.rows.device.type, groups > 1
    )
    route = work.route()
    if route.kind is GradientKernel.DENSE:
        return ConvDense(route, geometry, groups, weight)
    taps = Taps(kept.places, torch.unravel_index(distinct % area, geometry.kernel))
    source = Source(geometry, kept, taps, early)
    made = ConvColumns if route.kind is GradientKernel.COLUMNS else ConvGather
    return made(route, source, weight.rows, places)


class SourcePlan(GradientPlan):
    """A plan that reads the selected inputs from a :class:`Source`."""

    def __init__(self, route: Route, source: Source, rows: Tensor, places: Tensor) -> None:
        self.route, self._source, self._rows, self._places = route, source, rows, places

    def saved_input(self, x: Tensor, bias: bool) -> Tensor:
        return self._source.saved_input(x)


class ConvColumns(SourcePlan):
    """One product of the output's gradient with the selected inputs."""

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy = batched(dy, self._source.geometry)
        inputs = self._source.reader(kept, dy.shape[2:])
        flat = dy.flatten(2)
        each = flat.shape[0] * flat.shape[2] // FEW
        count = len(self._source.taps.channels)
        parts = [summed_product(inputs.part(p), flat) for p in chunks(count, each, dy.device.type)]
        return torch.cat(parts)[self._places, self._rows], None


class ConvGather(SourcePlan):
    """Multiplies and sums connection by connection; usual for depthwise convolutions."""

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy = batched(dy, self._source.geometry)
        inputs, flat = self._source.reader(kept, dy.shape[2:]), dy.flatten(2)
        total = [dy.new_zeros(0, dtype=wide_type(dy))]
        for part in chunks(len(self._rows), flat.shape[0] * flat.shape[2], dy.device.type):
            total.append(dots(flat.index_select(1, self._rows[part]), inputs.pick(self._places[part])))
        return torch.cat(total), None


class ConvDense(GradientPlan):
    """Computes the gradient of the whole weight, picks the chosen numbers, and frees it."""

    def __init__(self, route: Route, geometry: Geometry, groups: int, weight: TrainedWeight) -> None:
        self.route, self._geometry, self._groups = route, geometry, groups
        self._shape, self._flat = weight.layout.shape, weight.flat

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy, x = batched(dy, self._geometry), batched(kept, self._geometry)
        padding = one_padding(self._geometry.padding) if self._geometry.mode == 'constant' else None
        if padding is None:
            x, padding = self._geometry.padded(x), [0] * len(self._geometry.kernel)
        whole = weight_gradient(dy, x, self._shape, self._geometry, padding, self._groups, transposed=False)
        return whole.reshape(-1).index_select(0, self._flat), None


def transposed_plan(owner: nn.Module, weight: TrainedWeight) -> GradientPlan:
    """The cheapest plan of a transposed convolution."""
    geometry, groups = geometry_of(owner), int(owner.groups)  # type: ignore[arg-type]
    layout, area = weight.layout, prod(geometry.kernel)
    inputs = layout.shape[0]
    group = weight.rows // layout.shape[1]
    kept = Kept(weight.columns // area + group * (inputs // groups), inputs)
    distinct = len(kept) * area if groups == 1 else layout.fan_in * layout.neurons
    device = weight.rows.device.type
    work = LayerCost(layout.neurons, layout.fan_in, distinct, len(weight), len(kept), inputs, device, groups > 1)
    route = work.route()
    if route.kind is GradientKernel.COLUMNS and groups > 1:
        # Some of the channels would form groups of unequal size, which the native gradient does not support.
        route = Route(GradientKernel.DENSE, inputs, inputs, len(weight))
    if route.kind is GradientKernel.GATHER:
        return TransposedGather(route, geometry, kept, weight)
    return TransposedProduct(route, geometry, kept if route.kind is GradientKernel.COLUMNS else None, weight, groups)


class TransposedGather(GradientPlan):
    """Multiplies and sums connection by connection."""

    def __init__(self, route: Route, geometry: Geometry, kept: Kept, weight: TrainedWeight) -> None:
        self.route, self._geometry, self._kept = route, geometry, kept
        offsets = torch.unravel_index(weight.columns % prod(geometry.kernel), geometry.kernel)
        self._taps = Taps(weight.rows, offsets)

    def saved_input(self, x: Tensor, bias: bool) -> Tensor:
        return self._kept.of(batched(x, self._geometry))

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy = batched(dy, self._geometry)
        windows, flat = self._geometry.windows(self._geometry.padded(dy), kept.shape[2:]), kept.flatten(2)
        total = [dy.new_zeros(0, dtype=wide_type(dy))]
        for part in chunks(len(self._kept.places), flat.shape[0] * flat.shape[2], dy.device.type):
            picked = flat.index_select(1, self._kept.places[part])
            total.append(dots(self._taps.read(windows, part).flatten(2), picked))
        return torch.cat(total), None


class TransposedProduct(GradientPlan):
    """Computes the native gradient of the kept channels, picks the chosen numbers, and frees it.

    On the dense route, all channels are kept.
    """

    def __init__(self, route: Route, geometry: Geometry, kept: Kept | None, weight: TrainedWeight, groups: int) -> None:
        self.route, self._geometry, self._kept, self._groups = route, geometry, kept, groups
        shape = weight.layout.shape
        self._shape = shape if kept is None else (len(kept), *shape[1:])
        self._flat = weight.flat
        if kept is not None:
            self._flat = kept.places * prod(shape[1:]) + weight.flat % prod(shape[1:])

    def saved_input(self, x: Tensor, bias: bool) -> Tensor:
        return x if self._kept is None else self._kept.of(batched(x, self._geometry))

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy, x = batched(dy, self._geometry), batched(kept, self._geometry)
        padding = one_padding(self._geometry.padding)
        assert padding is not None, 'a transposed convolution has symmetric padding'
        whole = weight_gradient(dy, x, self._shape, self._geometry, padding, self._groups, transposed=True)
        return whole.reshape(-1).index_select(0, self._flat), None
