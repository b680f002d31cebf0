"""What the selections of two tasks have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmgps.selection import Connections, Selection, SelectionMismatchError


@dataclass(frozen=True)
class Overlap:
    """Connections of one weight that two selections share.

    Args:
        name: Of the weight.
        first: Connections that the first chose.
        second: That the second chose.
        shared: That both chose.
        by_chance: Shared ones that are to be expected if each neuron had chosen as many at random.
    """

    name: str
    first: int
    second: int
    shared: int
    by_chance: float

    @property
    def share(self) -> float:
        """Shared connections as a part of those that any of the two chose."""
        return self.shared / max(1, self.first + self.second - self.shared)

    @property
    def chance_share(self) -> float:
        """The same for choices at random."""
        return self.by_chance / max(1.0, self.first + self.second - self.by_chance)


def overlaps(first: Selection, second: Selection) -> list[Overlap]:
    """Weight by weight, for those of which both have connections, in the order of the first.

    Raises:
        SelectionMismatchError: If they were made for different architectures.
    """
    if first.architecture != second.architecture:
        raise SelectionMismatchError(
            f'the selections were made for different architectures, {first.architecture[:12]} and '
            f'{second.architecture[:12]}: they have no connections in common'
        )
    both = [name for name in first.connections if name in second.connections]
    found = [_overlap(name, first.connections[name], second.connections[name]) for name in both]
    return [entry for entry in found if entry.first and entry.second]


def in_all(parts: list[Overlap]) -> Overlap:
    """The sum over all weights."""
    sums = {key: sum(getattr(part, key) for part in parts) for key in ('first', 'second', 'shared', 'by_chance')}
    return Overlap('all', **sums)


def _overlap(name: str, mine: Connections, its: Connections) -> Overlap:
    shared = int(torch.isin(mine.positions, its.positions).sum())
    counts = [torch.bincount(item.rows, minlength=item.neurons).double() for item in (mine, its)]
    by_chance = float((counts[0] * counts[1]).sum()) / mine.fan_in
    return Overlap(name, len(mine), len(its), shared, by_chance)
