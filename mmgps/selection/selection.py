"""The selection: which numbers of a network are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmgps.utils.text import nearest

from .fingerprint import architecture_fingerprint
from .neurons import NeuronLayout
from .roles import Parameter, describe


class SelectionMismatchError(ValueError):
    """A selection was made for another network."""


@dataclass(frozen=True)
class Connections:
    """The chosen connections of one weight.

    Args:
        positions: Ascending flat positions in the weight read as ``[neurons, fan_in]``, int64 ``[chosen]``.
        neurons: Rows.
        fan_in: Columns.
    """

    positions: Tensor
    neurons: int
    fan_in: int

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def rows(self) -> Tensor:
        """Neuron of each chosen connection, int64 ``[chosen]``."""
        return self.positions // self.fan_in

    @property
    def columns(self) -> Tensor:
        """Input of each chosen connection within its neuron, int64 ``[chosen]``."""
        return self.positions % self.fan_in

    def check(self) -> None:
        """Check the positions, since training would silently wrap around at invalid ones.

        Raises:
            ValueError: If they are not integers in one dimension, do not ascend, or lie outside the weight.
        """
        positions, numel = self.positions, self.neurons * self.fan_in
        if positions.dim() != 1 or positions.is_floating_point() or positions.is_complex():
            raise ValueError(
                f'positions are {positions.dtype} {tuple(positions.shape)}; expected integers in one dimension'
            )
        if not len(positions):
            return
        if not bool((positions.diff() > 0).all()):
            raise ValueError('positions do not ascend; expected each chosen connection once and in order')
        if not 0 <= int(positions[0]) <= int(positions[-1]) < numel:
            raise ValueError(
                f'positions go from {int(positions[0])} to {int(positions[-1])}; expected 0 to {numel - 1} for '
                f'{self.neurons} neurons of fan-in {self.fan_in}'
            )

    def mask(self, layout: NeuronLayout) -> Tensor:
        """True where chosen, in the shape of the weight."""
        rows = torch.zeros(self.neurons * self.fan_in, dtype=torch.bool, device=self.positions.device)
        rows[self.positions] = True
        return layout.from_rows(rows.view(self.neurons, self.fan_in))


@dataclass(frozen=True)
class Selection:
    """The numbers of a backbone that a method trains.

    Args:
        method: Name of the method, such as ``'gps'``.
        connections: Weight name to its chosen connections.
        whole: Names of the parameters that are trained in full.
        architecture: :func:`architecture_fingerprint` of the backbone.
        settings: Settings of the method, such as ``k``; JSON values.
        loss: The loss whose gradients made the choice, and its options; JSON values. None if no gradients were used, or
            if an older release wrote the selection.
    """

    method: str
    connections: Mapping[str, Connections]
    whole: tuple[str, ...]
    architecture: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        """Count of chosen connections, without parameters that are trained in full."""
        return sum(map(len, self.connections.values()))

    def equals(self, other: Selection) -> bool:
        """True if both select the same numbers of the same architecture."""
        return (
            self.architecture == other.architecture
            and set(self.whole) == set(other.whole)
            and self.connections.keys() == other.connections.keys()
            and all(torch.equal(mine.positions, other.connections[n].positions) for n, mine in self.connections.items())
        )

    def resolve(self, backbone: nn.Module) -> Iterator[tuple[Parameter, Connections]]:
        """Pair the connections with the weights of ``backbone``, in the order of the backbone.

        A selection that was read from a file has another order, in which sums over processes would round differently
        after a resume.

        Raises:
            SelectionMismatchError: If the selection was made for another architecture, or has positions outside a
                weight.
        """
        described = describe(backbone)
        self._check(backbone, described)
        for name, parameter in described.items():
            if name in self.connections:
                yield parameter, self.connections[name]

    def _check(self, backbone: nn.Module, described: Mapping[str, Parameter]) -> None:
        for name in (*self.connections, *self.whole):
            if name not in described:
                raise SelectionMismatchError(
                    f'the selection names {name!r}, which the backbone {type(backbone).__name__} does not have; '
                    f'nearest: {nearest(name, described) or "none"}; it was made for another architecture'
                )
        for name, connections in self.connections.items():
            layout = described[name].layout
            found = (layout.neurons, layout.fan_in) if layout else None
            if found != (connections.neurons, connections.fan_in):
                raise SelectionMismatchError(
                    f'the selection expects {name!r} to have {connections.neurons} neurons of fan-in '
                    f'{connections.fan_in}, found {found}; it was made for another architecture'
                )
            try:
                connections.check()
            except ValueError as error:
                raise SelectionMismatchError(f'the selection of {name!r} is invalid: {error}') from error
        if self.architecture != architecture_fingerprint(backbone):
            raise SelectionMismatchError(
                f'the selection was made for another architecture: fingerprint {self.architecture[:12]}, '
                f'found {architecture_fingerprint(backbone)[:12]} for {type(backbone).__name__}'
            )
