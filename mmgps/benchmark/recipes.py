"""How each method changes a fresh backbone, and the names of the methods on the command line and in the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from mmgps.selection import Selection
from mmgps.sparse import CompactTraining, FusedAttention, LeanOption, MaskedTraining, Recomputation
from mmgps.tuned import TrainingFactory, Tuned, method_of
from mmgps.tuning import BiasTuning, FullTuning, LinearProbe, TuningMethod
from mmgps.utils.text import nearest

from .lora import Lora, UnmergedLora

DEFAULT = ('full', 'linear', 'bias', 'lora-r8')
SPARSE: dict[str, TrainingFactory] = {'masked': MaskedTraining, 'compact': CompactTraining}
GPS_NAME = re.compile(r'gps-(masked|compact)-k([1-9]\d*)')


class Recipe(Protocol):
    """One method of the benchmark. It is sent to child processes."""

    def tune(self, model: nn.Module, target: str) -> Tuned:
        """Put the method to work on the backbone of a fresh ``model``."""
        ...


@dataclass(frozen=True)
class MethodRecipe:
    """A method that needs no gradient.

    Args:
        method: The method.
    """

    method: TuningMethod

    def tune(self, model: nn.Module, target: str) -> Tuned:
        return Tuned(model, self.method.select(model.get_submodule(target), None), self.method, target)


@dataclass(frozen=True)
class Selected:
    """A selection that was made before.

    Args:
        selection: The selection.
        sparse: The class that trains it.
    """

    selection: Selection
    sparse: TrainingFactory

    def tune(self, model: nn.Module, target: str) -> Tuned:
        return Tuned(model, self.selection, method_of(self.selection), target, self.sparse)


@dataclass(frozen=True)
class Lean:
    """A method combined with options that change how its network computes.

    Args:
        recipe: Recipe of the method.
        options: Creates the options.
    """

    recipe: Recipe
    options: Callable[[], Sequence[LeanOption]]

    def tune(self, model: nn.Module, target: str) -> Tuned:
        tuned = self.recipe.tune(model, target)
        tuned.lean = tuple(self.options())
        return tuned


FIXED: dict[str, Callable[[], Recipe]] = {
    'full': lambda: MethodRecipe(FullTuning()),
    'linear': lambda: MethodRecipe(LinearProbe()),
    'bias': lambda: MethodRecipe(BiasTuning()),
    'lora-r8': lambda: Lora(8),
    'lora-r8-unmerged': lambda: UnmergedLora(8),
}


def fused() -> list[LeanOption]:
    return [FusedAttention()]


def lean() -> list[LeanOption]:
    return [FusedAttention(), Recomputation()]


def leaner() -> list[LeanOption]:
    return [FusedAttention(), Recomputation(hidden=0.4)]


LEAN: dict[str, Callable[[], Sequence[LeanOption]]] = {'fused': fused, 'lean': lean, 'leaner': leaner}
"""Suffixes that may follow a method name after a plus sign, such as ``bias+lean``, with the options they stand for."""


def default_names(ks: Sequence[int]) -> list[str]:
    """Methods measured by default: GPS compact at every K of ``ks``, and GPS masked at the first."""
    return [*DEFAULT, f'gps-masked-k{ks[0]}', *(f'gps-compact-k{k}' for k in ks)]


def connections_per_neuron(names: Sequence[str]) -> list[int]:
    """Collect the values of K in ``names``.

    Raises:
        ValueError: If a name is not the name of a method.
    """
    for name in names:
        method, _, options = name.partition('+')
        if (method not in FIXED and not GPS_NAME.fullmatch(method)) or ('+' in name and options not in LEAN):
            known = [*FIXED, 'gps-masked-k1', 'gps-compact-k1']
            ends = [f'+{end}' for end in LEAN]
            near = nearest(name, [*known, *(one + end for one in known for end in ends)], 1)
            raise ValueError(
                f'unknown method {name!r}, expected one of {", ".join(known)}, with any K, and perhaps one of '
                f'{", ".join(ends)} behind it; nearest: {near}'
            )
    found = [GPS_NAME.fullmatch(name.partition('+')[0]) for name in names]
    return sorted({int(match[2]) for match in found if match})


def recipe_of(name: str, selections: Mapping[int, Selection]) -> Recipe:
    """The method called ``name``, with the selection for its K out of ``selections``."""
    if '+' in name:
        method, _, options = name.partition('+')
        return Lean(recipe_of(method, selections), LEAN[options])
    match = GPS_NAME.fullmatch(name)
    return Selected(selections[int(match[2])], SPARSE[match[1]]) if match else FIXED[name]()
