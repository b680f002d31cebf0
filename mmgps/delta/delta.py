"""What a run changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmgps.selection import Selection, bits

from .base import Base


@dataclass(frozen=True)
class Origin:
    """Where a delta comes from; JSON values.

    Args:
        metrics: Scores of the model, by name.
        config: The config of the run.
        dataset_meta: What mmseg keeps of the data set: its classes and their colours.
        epoch: Epochs that were trained.
        iteration: Iterations that were trained.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    dataset_meta: Mapping[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    iteration: int | None = None


@dataclass(frozen=True)
class Delta:
    """The numbers that a run changed, as they are after it. Base and delta give the trained network bit for bit.

    Args:
        selection: What was trained of the backbone, with the method and its settings.
        values: Weight of the backbone to the new numbers of its chosen connections, ``[chosen]`` in their order.
        tensors: Tensors that are new as a whole, by their names in the network: trained parameters and changed buffers
            of the backbone, what the method injected, and all that lies outside the backbone.
        base: The backbone before.
        target: Path of the backbone within the network; empty where it is the network.
        origin: Where it comes from.
    """

    selection: Selection
    values: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    base: Base
    target: str = 'backbone'
    origin: Origin = Origin()

    @property
    def k(self) -> int | None:
        """Connections per neuron, where the method has such a number."""
        return self.selection.settings.get('k')

    @property
    def prefix(self) -> str:
        """What the names of the backbone's tensors begin with, in the network."""
        return f'{self.target}.' if self.target else ''

    def head(self) -> dict[str, Tensor]:
        """What lies outside the backbone."""
        return {name: value for name, value in self.tensors.items() if not name.startswith(self.prefix)}

    def injected(self) -> set[str]:
        """Names, in the backbone, of what is no part of the base and was put beside it."""
        own = (name.removeprefix(self.prefix) for name in self.tensors if name.startswith(self.prefix))
        return {name for name in own if name not in self.base.digests}

    def __len__(self) -> int:
        """Numbers that it holds."""
        return sum(value.numel() for value in (*self.values.values(), *self.tensors.values()))

    def equals(self, other: Delta) -> bool:
        """Whether both have the same numbers at the same places of the same base, bit for bit."""
        return (
            self.selection.equals(other.selection)
            and (self.target, self.base.digests) == (other.target, other.base.digests)
            and same_bits(self.values, other.values)
            and same_bits(self.tensors, other.tensors)
        )


def same_bits(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Whether both hold tensors of the same names, types, shapes and bits."""
    return some.keys() == others.keys() and all(same(value, others[name]) for name, value in some.items())


def same(some: Tensor, other: Tensor) -> bool:
    """Whether both have the same type, shape and bits."""
    return some.dtype == other.dtype and some.shape == other.shape and torch.equal(bits(some), bits(other))
