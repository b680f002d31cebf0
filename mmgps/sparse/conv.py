"""Plans of convolutions."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from .attach import Plan
from .picking import chunks, dots, summed_product, wide_type
from .routes import MOSTLY, Route, Work
from .weight import TrainedWeight
from .windows import Geometry, geometry_of, one_padding

FEW = 16
"""How many times more numbers a product may hold at once than a gather."""


@dataclass(frozen=True)
class Taps:
    """What chosen connections read: a channel and a position of the kernel each.

    Args:
        channels: Input channel, counted over all groups, int64 ``[count]``.
        offsets: Position in the kernel, one index tensor ``[count]`` per spatial dimension.
    """

    channels: Tensor
    offsets: tuple[Tensor, ...]

    def read(self, windows: Tensor, part: slice) -> Tensor:
        """Copy ``[batch, part, *outputs]`` from windows ``[batch, channels, *kernel, *outputs]``."""
        index: tuple[Any, ...] = (slice(None), self.channels[part], *(offset[part] for offset in self.offsets))
        return windows[index]


@dataclass(frozen=True)
class Kept:
    """The input channels that some neuron selects; all of them, by reference, where that is most."""

    channels: Tensor
    total: int
    distinct: Tensor = field(init=False)
    places: Tensor = field(init=False)
    everything: bool = field(init=False)

    def __post_init__(self) -> None:
        distinct, places = torch.unique(self.channels, return_inverse=True)
        everything = len(distinct) > MOSTLY * self.total
        object.__setattr__(self, 'distinct', distinct)
        object.__setattr__(self, 'places', self.channels if everything else places)
        object.__setattr__(self, 'everything', everything)

    def __len__(self) -> int:
        return self.total if self.everything else len(self.distinct)

    def of(self, x: Tensor) -> Tensor:
        return x if self.everything else x.index_select(1, self.distinct)


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
    if route.kind == 'dense':
        return ConvDense(route, geometry, groups, weight)
    taps = Taps(kept.places, torch.unravel_index(distinct % area, geometry.kernel))
    source = Source(geometry, kept, taps, early)
    kind = ConvColumns if route.kind == 'columns' else ConvGather
    return kind(route, source, weight.rows, places)


@dataclass(frozen=True)
class Source:
    """What is kept of the input of a convolution, and the selected inputs made from it.

    Args:
        geometry: Of the convolution.
        kept: The channels.
        taps: The distinct selected inputs, among the kept channels.
        early: Whether they are read in forward, where that is less to keep than whole channels.
    """

    geometry: Geometry
    kept: Kept
    taps: Taps
    early: bool

    def keep(self, x: Tensor) -> Tensor:
        """``[batch, distinct, *outputs]`` or ``[batch, channels, *size]``."""
        x = batched(x, self.geometry)
        channels = self.kept.of(x)
        if not self.early or (self.geometry.plain and not self.kept.everything):
            return channels
        padded = self.geometry.padded(channels)
        return self.taps.read(self.geometry.windows(padded, self.geometry.outputs(padded.shape[2:])), slice(None))

    def reader(self, kept: Tensor, outputs: torch.Size) -> SelectedInputs:
        """The selected inputs at all ``outputs``."""
        if self.early:
            return SelectedInputs(kept.flatten(2), None)
        return SelectedInputs(self.geometry.windows(self.geometry.padded(kept), outputs), self.taps)


@dataclass(frozen=True)
class SelectedInputs:
    """Selected inputs ``[batch, distinct, positions]``, copied a part at a time where they are still windows."""

    source: Tensor
    taps: Taps | None

    def part(self, part: slice) -> Tensor:
        return self.source[:, part] if self.taps is None else self.taps.read(self.source, part).flatten(2)

    def pick(self, places: Tensor) -> Tensor:
        if self.taps is None:
            return self.source.index_select(1, places)
        chosen = Taps(self.taps.channels[places], tuple(offset[places] for offset in self.taps.offsets))
        return chosen.read(self.source, slice(None)).flatten(2)


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


def weight_gradient(
    dy: Tensor, x: Tensor, shape: tuple[int, ...], geometry: Geometry, padding: list[int], groups: int, transposed: bool
) -> Tensor:
    """The gradient of a convolution's weight of ``shape``, by the native operation."""
    stand_in = dy.new_empty(1).expand(shape)
    outputs = _outputs_of_transposed(x, geometry, padding) if transposed else list(dy.shape[2:])
    beyond = [found - least for found, least in zip(dy.shape[2:], outputs, strict=True)]
    stride, dilation, mask = list(geometry.stride), list(geometry.dilation), [False, True, False]
    native = torch.ops.aten.convolution_backward
    _, whole, _ = native(dy, x, stand_in, None, stride, padding, dilation, transposed, beyond, groups, mask)
    gradient: Tensor = whole
    return gradient


def _outputs_of_transposed(x: Tensor, geometry: Geometry, padding: list[int]) -> list[int]:
    """The least size of the output: a caller may have asked for more, by ``output_padding`` or ``output_size``."""
    sizes = zip(x.shape[2:], geometry.kernel, geometry.stride, geometry.dilation, padding, strict=True)
    return [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, d, p in sizes]


def batched(x: Tensor, geometry: Geometry) -> Tensor:
    """``x`` with a batch dimension."""
    return x if x.dim() == len(geometry.kernel) + 2 else x.unsqueeze(0)
