"""How each method changes a fresh backbone, and the names of the methods on the command line and in the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn
from torch.optim import Optimizer

from mmgps.selection import Selection
from mmgps.sparse import (
    CompactTraining,
    FusedAttention,
    LeanOption,
    MaskedTraining,
    Recomputation,
    SparseTraining,
    start_options,
)
from mmgps.tuning import BiasTuning, FullTuning, LinearProbe, TuningMethod
from mmgps.utils.text import nearest

from .lora import Lora, UnmergedLora

SparseClass = Callable[[nn.Module, Selection], SparseTraining]
DEFAULT = ('full', 'linear', 'bias', 'lora-r8')
SPARSE: dict[str, SparseClass] = {'masked': MaskedTraining, 'compact': CompactTraining}
GPS_NAME = re.compile(r'gps-(masked|compact)-k([1-9]\d*)')


class Recipe(Protocol):
    """One method of the benchmark. It is sent to child processes."""

    def apply(self, backbone: nn.Module) -> Selection:
        """Change ``backbone`` as the method requires, and return the selection of what it trains."""
        ...

    def training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        """Create the training of the chosen connections."""
        ...


@dataclass(frozen=True)
class Tuned:
    """A method that needs no gradient.

    Args:
        method: The method.
    """

    method: TuningMethod

    def apply(self, backbone: nn.Module) -> Selection:
        return self.method.select(backbone, None)

    def training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        return CompactTraining(backbone, selection)


@dataclass(frozen=True)
class Selected:
    """A selection that was made before.

    Args:
        selection: The selection.
        sparse: The class that trains it.
    """

    selection: Selection
    sparse: SparseClass

    def apply(self, backbone: nn.Module) -> Selection:
        return self.selection

    def training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        return self.sparse(backbone, selection)


@dataclass(frozen=True)
class Lean:
    """A method combined with options that change how its network computes.

    Args:
        recipe: Recipe of the method.
        options: Creates the options.
    """

    recipe: Recipe
    options: Callable[[], Sequence[LeanOption]]

    def apply(self, backbone: nn.Module) -> Selection:
        return self.recipe.apply(backbone)

    def training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        return LeanTraining(self.recipe.training(backbone, selection), backbone, self.options())


class LeanTraining:
    """A training of the connections that also starts the options.

    Args:
        training: The training.
        backbone: The network.
        options: Options for the network.
    """

    def __init__(self, training: SparseTraining, backbone: nn.Module, options: Sequence[LeanOption]) -> None:
        self._training, self._backbone, self._options = training, backbone, options

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        return self._training.replacements()

    def check_optimizer(self, optimizer: Optimizer) -> None:
        self._training.check_optimizer(optimizer)

    def start(self, registered: bool = True) -> None:
        self._training.start(registered)
        start_options(self._options, self._backbone)

    def close(self) -> None:
        self._training.close()

    def watch_weights(self) -> None:
        self._training.watch_weights()

    def before_step(self) -> None:
        self._training.before_step()

    def after_step(self) -> None:
        self._training.after_step()

    def report(self) -> str:
        return '\n'.join([self._training.report(), *(option.report() for option in self._options)])


FIXED: dict[str, Callable[[], Recipe]] = {
    'full': lambda: Tuned(FullTuning()),
    'linear': lambda: Tuned(LinearProbe()),
    'bias': lambda: Tuned(BiasTuning()),
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
