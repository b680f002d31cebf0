"""What a convolution keeps of its input, and the selected inputs that are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .routes import MOSTLY
from .windows import Geometry


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


def batched(x: Tensor, geometry: Geometry) -> Tensor:
    """``x`` with a batch dimension."""
    return x if x.dim() == len(geometry.kernel) + 2 else x.unsqueeze(0)
