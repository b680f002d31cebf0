"""Inputs of a convolution: its geometry, the saved channels, and the selected inputs read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .routes import MOSTLY


@dataclass(frozen=True)
class Geometry:
    """The geometry of a convolution.

    Args:
        kernel: Size of the kernel, one number per spatial dimension, as are stride and dilation.
        stride: Steps between outputs.
        dilation: Steps between kernel positions.
        padding: In the order of ``torch.nn.functional.pad``: last dimension first, before and after.
        mode: Padding mode of ``torch.nn.functional.pad``.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    mode: str = 'constant'

    @property
    def plain(self) -> bool:
        """True if each output position reads only the input at the same position."""
        return {*self.kernel, *self.stride} == {1} and not any(self.padding)

    def padded(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding, self.mode) if any(self.padding) else x

    def windows(self, x: Tensor, outputs: Sequence[int]) -> Tensor:
        """View the padded ``x [batch, channels, *size]`` as ``[batch, channels, *kernel, *outputs]``.

        It does not depend on the strides of ``x``, since a compiler may change the memory layout after tracing.
        """
        dims = len(self.kernel)
        moves = zip(self.kernel, self.dilation, self.stride, outputs, strict=True)
        for dim, (kernel, dilation, stride, count) in enumerate(moves, 2):
            x = x.unfold(dim, dilation * (kernel - 1) + 1, stride).narrow(dim, 0, count)
            x = x[..., ::dilation] if dilation > 1 else x
        return x.permute(0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))

    def outputs(self, padded: Sequence[int]) -> list[int]:
        """Output size for a padded input size."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return [(n - r) // s + 1 for n, r, s in zip(padded, reach, self.stride, strict=True)]


def geometry_of(owner: nn.Module) -> Geometry:
    """The geometry of a convolution; for a transposed one, that of the convolution that it reverses."""
    kernel, stride, dilation = (tuple(getattr(owner, name)) for name in ('kernel_size', 'stride', 'dilation'))
    mode = str(owner.padding_mode)
    return Geometry(kernel, stride, dilation, _padding(owner), 'constant' if mode == 'zeros' else mode)


def _padding(owner: nn.Module) -> tuple[int, ...]:
    """The padding that torch reads in forward.

    This is ``padding``, which a network may change after construction, or a value derived from it by the constructor.
    """
    padding: Any = owner.padding
    if owner.padding_mode == 'zeros' and not isinstance(padding, str):
        return tuple(side for size in reversed(padding) for side in (size, size))
    return tuple(getattr(owner, '_reversed_padding_repeated_twice'))  # noqa: B009


def one_padding(padding: Sequence[int]) -> list[int] | None:
    """Symmetric padding, first dimension first; None if the two sides differ."""
    sides = [(padding[at], padding[at + 1]) for at in range(0, len(padding), 2)][::-1]
    return [before for before, _ in sides] if all(a == b for a, b in sides) else None


@dataclass(frozen=True)
class Taps:
    """The inputs that chosen connections read, each given by a channel and a kernel position.

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


class Kept:
    """The input channels that some neuron selects, or all channels without a copy if most are selected.

    Args:
        channels: Input channel of each chosen connection, int64 ``[chosen]``.
        total: Number of input channels.
    """

    def __init__(self, channels: Tensor, total: int) -> None:
        self._total = total
        self._distinct, places = torch.unique(channels, return_inverse=True)
        self.everything = len(self._distinct) > MOSTLY * total
        self.places = channels if self.everything else places
        """Index of the channel of each connection among the kept ones, int64 ``[chosen]``."""

    def __len__(self) -> int:
        return self._total if self.everything else len(self._distinct)

    def of(self, x: Tensor) -> Tensor:
        """The kept channels of ``x [batch, channels, *size]``."""
        return x if self.everything else x.index_select(1, self._distinct)


@dataclass(frozen=True)
class Source:
    """The saved part of the input of a convolution, and the selected inputs read from it.

    Args:
        geometry: Geometry of the convolution.
        kept: The saved channels.
        taps: The distinct selected inputs, among the kept channels.
        early: Whether forward reads them, so that they are saved instead of whole channels.
    """

    geometry: Geometry
    kept: Kept
    taps: Taps
    early: bool

    def saved_input(self, x: Tensor) -> Tensor:
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
    """Selected inputs ``[batch, distinct, positions]``; with ``taps``, read part by part from windows."""

    source: Tensor
    taps: Taps | None

    def part(self, part: slice) -> Tensor:
        return self.source[:, part] if self.taps is None else self.taps.read(self.source, part).flatten(2)

    def pick(self, places: Tensor) -> Tensor:
        if self.taps is None:
            return self.source.index_select(1, places)
        chosen = Taps(self.taps.channels[places], tuple(offset[places] for offset in self.taps.offsets))
        return chosen.read(self.source, slice(None)).flatten(2)


def batched(x: Tensor, geometry: Geometry) -> Tensor:
    """``x`` with a batch dimension."""
    return x if x.dim() == len(geometry.kernel) + 2 else x.unsqueeze(0)


def weight_gradient(
    dy: Tensor, x: Tensor, shape: tuple[int, ...], geometry: Geometry, padding: list[int], groups: int, transposed: bool
) -> Tensor:
    """The gradient of the whole weight ``shape`` of a convolution, computed by the native operation."""
    stand_in = dy.new_empty(1).expand(shape)
    outputs = _outputs_of_transposed(x, geometry, padding) if transposed else list(dy.shape[2:])
    beyond = [found - least for found, least in zip(dy.shape[2:], outputs, strict=True)]
    stride, dilation, mask = list(geometry.stride), list(geometry.dilation), [False, True, False]
    native = torch.ops.aten.convolution_backward
    _, whole, _ = native(dy, x, stand_in, None, stride, padding, dilation, transposed, beyond, groups, mask)
    return cast(Tensor, whole)


def _outputs_of_transposed(x: Tensor, geometry: Geometry, padding: list[int]) -> list[int]:
    """The minimum size of the output, which ``output_padding`` and ``output_size`` enlarge."""
    sizes = zip(x.shape[2:], geometry.kernel, geometry.stride, geometry.dilation, padding, strict=True)
    return [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, d, p in sizes]
