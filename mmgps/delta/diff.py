"""What two deltas of one base have in common, and in what they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgps.selection import bits

from .combine import check_same_base
from .delta import Delta


@dataclass(frozen=True)
class Difference:
    """Numbers of one tensor, in two deltas.

    Args:
        name: Of the tensor, in the network.
        only_first: Numbers that only the first delta holds.
        only_second: Numbers that only the second holds.
        shared: Numbers that both hold.
        differing: Those of them of which the bits differ.
        largest: Largest absolute difference among them; NaN where numbers are.
    """

    name: str
    only_first: int = 0
    only_second: int = 0
    shared: int = 0
    differing: int = 0
    largest: float = 0.0

    @property
    def overlap(self) -> float:
        """Shared numbers as a part of those that any of the two holds."""
        total = self.only_first + self.only_second + self.shared
        return self.shared / total if total else 0.0


def diff(first: Delta, second: Delta) -> list[Difference]:
    """Tensor by tensor, in the order of the first delta.

    Raises:
        DeltaMismatchError: If they belong to different bases.
    """
    check_same_base(first, second)
    names = dict.fromkeys((*first.values, *second.values))
    found = [_of_connections(name, first, second) for name in names]
    whole = dict.fromkeys((*first.tensors, *second.tensors))
    return found + [_of_tensors(name, first.tensors.get(name), second.tensors.get(name)) for name in whole]


def total(name: str, parts: Iterable[Difference]) -> Difference:
    """The sum of ``parts``, under ``name``."""
    rows = list(parts)
    sums = {key: sum(getattr(row, key) for row in rows) for key in ('only_first', 'only_second', 'shared', 'differing')}
    # torch's maximum is NaN wherever one is, Python's depends on the order
    largest = torch.tensor([0.0, *(row.largest for row in rows)], dtype=torch.double).max()
    return Difference(name, **sums, largest=float(largest))


def format_diff(first: Delta, second: Delta) -> str:
    """The table that ``tools/delta.py diff`` prints."""
    rows = diff(first, second)
    chosen = len({*first.values, *second.values})
    sums = [total('all connections', rows[:chosen]), total('all other tensors', rows[chosen:])]
    lines = [f'{"tensor":<52}{"first":>10}{"second":>10}{"both":>10}{"differ":>10}{"largest":>12}']
    lines += [
        f'{row.name:<52}{row.only_first:>10,}{row.only_second:>10,}{row.shared:>10,}{row.differing:>10,}{row.largest:>12.3g}'
        for row in [*rows, *sums]
    ]
    return '\n'.join(lines)


def _of_connections(name: str, first: Delta, second: Delta) -> Difference:
    mine, its = (d.selection.connections.get(name) for d in (first, second))
    full = first.prefix + name
    if mine is None or its is None:
        return Difference(full, only_first=len(mine or ()), only_second=len(its or ()))
    here, there = torch.isin(mine.positions, its.positions), torch.isin(its.positions, mine.positions)
    both = _compared(full, first.values[name][here], second.values[name][there])
    return Difference(full, len(mine) - both.shared, len(its) - both.shared, both.shared, both.differing, both.largest)


def _of_tensors(name: str, mine: Tensor | None, its: Tensor | None) -> Difference:
    if mine is not None and its is not None and (mine.shape, mine.dtype) == (its.shape, its.dtype):
        return _compared(name, mine, its)
    sizes = [0 if value is None else value.numel() for value in (mine, its)]
    return Difference(name, only_first=sizes[0], only_second=sizes[1])


def _compared(name: str, mine: Tensor, its: Tensor) -> Difference:
    """Two tensors of one shape and type."""
    size = mine.element_size()
    differ = (bits(mine).view(-1, size) != bits(its).view(-1, size)).any(1)
    gaps = (mine.flatten()[differ].double() - its.flatten()[differ].double()).abs()
    largest = float(gaps.max()) if len(gaps) else 0.0
    return Difference(name, shared=mine.numel(), differing=int(differ.sum()), largest=largest)
