"""Combine two deltas of one base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmgps.selection import Connections, Selection
from mmgps.utils.text import listed

from .base import DeltaMismatchError
from .delta import Delta, Origin

UNION = 'union'


class DeltaUnionError(ValueError):
    """Two deltas cannot be combined."""


def union(first: Delta, second: Delta) -> Delta:
    """The delta that applies ``first`` and then ``second``.

    Disjoint connections are all kept. Where both hold a number, **the second wins**. The head, with its classes and
    config, comes from the second too.

    Raises:
        DeltaMismatchError: If they belong to different bases.
        DeltaUnionError: If they inject different modules, or if ``first`` holds a whole weight and ``second`` some of
            its connections.
    """
    check_same_base(first, second)
    names = dict.fromkeys((*first.values, *second.values))
    covered = {name for name in names if second.prefix + name in second.tensors}
    lost = [name for name in second.values if first.prefix + name in first.tensors]
    if lost:
        raise DeltaUnionError(
            f'the first delta holds all numbers of {listed(lost)} and the second, which wins, only some: give them in '
            'the other order, or merge the first into the base'
        )
    joined = {name: _joined(name, first, second) for name in names if name not in covered}
    connections = {name: chosen for name, (chosen, _) in joined.items()}
    either = dict.fromkeys((*first.selection.whole, *second.selection.whole))
    whole = tuple(name for name in either if name not in connections)
    method, settings = _method(first, second)
    selection = Selection(method, connections, whole, first.selection.architecture, settings)
    values = {name: numbers for name, (_, numbers) in joined.items()}
    origin = Origin(config=second.origin.config, dataset_meta=second.origin.dataset_meta)
    return Delta(
        selection, values, {**first.tensors, **second.tensors}, replace(first.base, rests={}), first.target, origin
    )


def check_same_base(first: Delta, second: Delta) -> None:
    """Make sure that both belong to one base.

    Raises:
        DeltaMismatchError: Names the difference.
    """
    if first.target != second.target:
        raise DeltaMismatchError(f'one delta tunes {first.target!r}, the other {second.target!r}')
    first.base.check(second.base, 'the base of the other delta')


def _joined(name: str, first: Delta, second: Delta) -> tuple[Connections, Tensor]:
    """Connections and numbers of one weight."""
    parts = [(d.selection.connections[name], d.values[name]) for d in (first, second) if name in d.values]
    places = torch.unique(torch.cat([chosen.positions for chosen, _ in parts]))
    numbers = parts[0][1].new_empty(len(places))
    for chosen, values in parts:
        numbers[torch.searchsorted(places, chosen.positions)] = values
    return replace(parts[0][0], positions=places), numbers


def _method(first: Delta, second: Delta) -> tuple[str, Mapping[str, Any]]:
    """The method and settings of the delta with injected modules, so that they can be injected again; else a union."""
    own = [(d.selection.method, dict(d.selection.settings), d.injected()) for d in (first, second)]
    adding = [(method, settings) for method, settings, injected in own if injected]
    if len(adding) == 2 and own[0] != own[1]:
        raise DeltaUnionError(
            f'both deltas inject modules, {own[0][0]} with {own[0][1]} and {own[1][0]} with {own[1][1]}; '
            'merge one into the base first'
        )
    if adding:
        return adding[0]
    return UNION, {'of': [[method, settings] for method, settings, _ in own]}
