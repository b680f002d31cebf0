"""Compare two deltas of one base, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmgps.selection import NeuronLayout, bits
from mmgps.utils.text import text_table

from .combine import check_same_base
from .delta import Delta


@dataclass(frozen=True)
class Difference:
    """Numbers of one tensor, in two deltas.

    Args:
        name: Name of the tensor in the network.
        only_first: Numbers that only the first delta holds.
        only_second: Numbers that only the second holds.
        shared: Numbers that both hold.
        differing: Shared numbers with different bits.
        largest: Largest absolute difference among them; NaN if one of the numbers is NaN.
    """

    name: str
    only_first: int = 0
    only_second: int = 0
    shared: int = 0
    differing: int = 0
    largest: float = 0.0

    @property
    def overlap(self) -> float:
        """Shared numbers as a share of all numbers that either holds."""
        total = self.only_first + self.only_second + self.shared
        return self.shared / total if total else 0.0


def diff(first: Delta, second: Delta) -> list[Difference]:
    """The differences tensor by tensor, in the order of the first delta.

    If one delta holds a weight in full and the other in part, the chosen connections are shared and the rest belongs to
    the first alone. Deltas do not record whether a convolution is transposed: one with equal input and output widths
    counts as an ordinary convolution.

    Raises:
        DeltaMismatchError: If they belong to different bases.
    """
    check_same_base(first, second)
    names = dict.fromkeys((*first.values, *second.values))
    found = [_of_connections(name, first, second) for name in names]
    compared = {row.name for row in found}
    whole = [name for name in dict.fromkeys((*first.tensors, *second.tensors)) if name not in compared]
    return found + [_of_tensors(name, first.tensors.get(name), second.tensors.get(name)) for name in whole]


def total(name: str, parts: Iterable[Difference]) -> Difference:
    """The sum of ``parts``, under ``name``."""
    rows = list(parts)
    sums = {key: sum(getattr(row, key) for row in rows) for key in ('only_first', 'only_second', 'shared', 'differing')}
    # torch's maximum is NaN if any number is, Python's depends on the order
    largest = torch.tensor([0.0, *(row.largest for row in rows)], dtype=torch.double).max()
    return Difference(name, **sums, largest=float(largest))


def format_diff(first: Delta, second: Delta) -> str:
    """The table printed by ``tools/delta.py diff``."""
    rows = diff(first, second)
    chosen = len({*first.values, *second.values})
    sums = [total('all connections', rows[:chosen]), total('all other tensors', rows[chosen:])]
    cells = [
        [r.name, f'{r.only_first:,}', f'{r.only_second:,}', f'{r.shared:,}', f'{r.differing:,}', f'{r.largest:.3g}']
        for r in [*rows, *sums]
    ]
    return text_table(['tensor', 'first', 'second', 'both', 'differ', 'largest'], cells)


def _of_connections(name: str, first: Delta, second: Delta) -> Difference:
    (mine, ours), (its, theirs) = _held(name, first, second), _held(name, second, first)
    both = _compared(first.prefix + name, ours[torch.isin(mine, its)], theirs[torch.isin(its, mine)])
    return replace(both, only_first=len(mine) - both.shared, only_second=len(its) - both.shared)


def _held(name: str, delta: Delta, other: Delta) -> tuple[Tensor, Tensor]:
    """Ascending positions and numbers that ``delta`` holds of a weight; one of the two deltas has connections in it."""
    if name in delta.values:
        return delta.selection.connections[name].positions, delta.values[name]
    whole, chosen = delta.tensors.get(delta.prefix + name), other.selection.connections[name]
    if whole is None:
        return chosen.positions[:0], other.values[name][:0]
    shape = tuple(whole.shape)
    transposed = shape[0] != chosen.neurons
    layout = NeuronLayout(shape, transposed, chosen.neurons // shape[1] if transposed else 1)
    return torch.arange(whole.numel()), layout.to_rows(whole).flatten()


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
