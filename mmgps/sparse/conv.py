"""Plans of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attach import Plan, attach, constant, wanted
from .conv_inputs import Kept, Source, Taps, batched
from .conv_native import weight_gradient
from .forward import OwnForward
from .picking import chunks, dots, summed_product, wide_type
from .routes import Kind, Route, Work
from .weight import TrainedWeight
from .windows import Geometry, geometry_of, one_padding

FEW = 16
"""How many times more numbers a product may hold at once than a gather."""


class ConvForward(OwnForward):
    """The forward of one convolution, transposed or not, while numbers of its weight are trained.

    Args:
        owner: The layer.
        values: The trained numbers.
        plan: How their gradient is made.
    """

    def __init__(self, owner: nn.Module, values: nn.Parameter, plan: Plan) -> None:
        super().__init__(owner)
        self._layer: Any = owner
        self._values, self.plan = values, plan

    def __call__(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        layer, weight = self._layer, constant(self._layer.weight)
        if layer.transposed:
            y = _transposed(layer, input, weight, output_size)
        else:
            y = layer._conv_forward(input, weight, layer.bias)
        return attach(y, input, self._values, None, self.plan) if wanted(self._values) else y


def _transposed(layer: Any, x: Tensor, weight: Tensor, output_size: Sequence[int] | None) -> Tensor:
    """As ``nn.ConvTranspose1d``, ``2d`` and ``3d`` compute it."""
    dims, stride, padding = len(layer.kernel_size), layer.stride, layer.padding
    beyond = layer._output_padding(x, output_size, stride, padding, layer.kernel_size, dims, layer.dilation)
    function: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    return function(x, weight, layer.bias, stride, padding, beyond, layer.groups, layer.dilation)


def conv_plan(owner: nn.Module, weight: TrainedWeight) -> Plan:
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
    work = Work(
        neurons, weight.layout.fan_in, len(distinct), len(weight), count, inputs, weight.rows.device.type, groups > 1
    )
    route = work.route()
    if route.kind is Kind.DENSE:
        return ConvDense(route, geometry, groups, weight)
    taps = Taps(kept.places, torch.unravel_index(distinct % area, geometry.kernel))
    source = Source(geometry, kept, taps, early)
    made = ConvColumns if route.kind is Kind.COLUMNS else ConvGather
    return made(route, source, weight.rows, places)


class ConvPlan(Plan):
    """A plan of a convolution. The gradient of the bias is left to the native operation."""

    def lay_out(self, dy: Tensor) -> Tensor:
        return dy


class ConvColumns(ConvPlan):
    """One product of the output's gradient with the selected inputs."""

    def __init__(self, route: Route, source: Source, rows: Tensor, places: Tensor) -> None:
        self.route, self._source, self._rows, self._places = route, source, rows, places
        self._count = len(source.taps.channels)

    def keep(self, x: Tensor, bias: bool) -> Tensor:
        return self._source.keep(x)

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy = batched(dy, self._source.geometry)
        inputs = self._source.reader(kept, dy.shape[2:])
        flat = dy.flatten(2)
        each = flat.shape[0] * flat.shape[2] // FEW
        parts = [summed_product(inputs.part(p), flat) for p in chunks(self._count, each, dy.device.type)]
        return torch.cat(parts)[self._places, self._rows], None


class ConvGather(ConvPlan):
    """Multiplies and adds up connection by connection: the way of depthwise convolutions."""

    def __init__(self, route: Route, source: Source, rows: Tensor, places: Tensor) -> None:
        self.route, self._source, self._rows, self._places = route, source, rows, places

    def keep(self, x: Tensor, bias: bool) -> Tensor:
        return self._source.keep(x)

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy = batched(dy, self._source.geometry)
        inputs, flat = self._source.reader(kept, dy.shape[2:]), dy.flatten(2)
        total = [dy.new_zeros(0, dtype=wide_type(dy))]
        for part in chunks(len(self._rows), flat.shape[0] * flat.shape[2], dy.device.type):
            total.append(dots(flat.index_select(1, self._rows[part]), inputs.pick(self._places[part])))
        return torch.cat(total), None


class ConvDense(ConvPlan):
    """Makes the whole gradient, picks, and frees it."""

    def __init__(self, route: Route, geometry: Geometry, groups: int, weight: TrainedWeight) -> None:
        self.route, self._geometry, self._groups = route, geometry, groups
        self._shape, self._flat = weight.layout.shape, weight.flat

    def keep(self, x: Tensor, bias: bool) -> Tensor:
        return x

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy, x = batched(dy, self._geometry), batched(kept, self._geometry)
        padding = one_padding(self._geometry.padding) if self._geometry.mode == 'constant' else None
        if padding is None:
            x, padding = self._geometry.padded(x), [0] * len(self._geometry.kernel)
        whole = weight_gradient(dy, x, self._shape, self._geometry, padding, self._groups, transposed=False)
        return whole.reshape(-1).index_select(0, self._flat), None
