"""Methods of the benchmark: their names, and how each one changes a fresh backbone."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmgps.rewiring import CONVOLUTIONS, TRANSPOSED
from mmgps.selection import Role, Selection, architecture_fingerprint, describe
from mmgps.sparse import (
    CompactTraining,
    FusedAttention,
    LeanOption,
    MaskedTraining,
    Recomputation,
)
from mmgps.tuned import TrainingFactory, Tuned, method_for
from mmgps.tuning import BiasTuning, FullTuning, LinearProbe, LoRA, TuningMethod
from mmgps.utils.requirements import require
from mmgps.utils.text import nearest

DEFAULT = ('full', 'linear', 'bias', 'lora-r8')
SPARSE: dict[str, TrainingFactory] = {'masked': MaskedTraining, 'compact': CompactTraining}
GPS_NAME = re.compile(r'gps-(masked|compact)-k([1-9]\d*)')


class LeftOutError(RuntimeError):
    """The benchmark cannot measure a method here; the message says why."""


class Recipe(ABC):
    """One method of the benchmark. Recipes are pickled for child processes."""

    @abstractmethod
    def tune(self, model: nn.Module, target: str) -> Tuned:
        """Tune a fresh ``model`` by the method, up to :meth:`Tuned.start`."""


@dataclass(frozen=True)
class MethodRecipe(Recipe):
    """A method that needs no gradient to select.

    Args:
        method: The method.
    """

    method: TuningMethod

    def tune(self, model: nn.Module, target: str) -> Tuned:
        return Tuned(model, self.method.select(model.get_submodule(target), None), self.method, target)


@dataclass(frozen=True)
class Selected(Recipe):
    """A selection that already exists.

    Args:
        selection: The selection.
        sparse: The class that trains it.
    """

    selection: Selection
    sparse: TrainingFactory

    def tune(self, model: nn.Module, target: str) -> Tuned:
        return Tuned(model, self.selection, method_for(self.selection), target, self.sparse)


class Lora(Recipe):
    """LoRA (Hu et al., ICLR 2022) by HF ``peft``, on every linear layer of a plain ViT.

    ``peft`` merges the factors into the weight of an ``nn.MultiheadAttention`` before each forward pass and removes
    them afterwards, so autograd computes the full gradient of that weight. :class:`UnmergedLora` is the control for
    this handicap.

    Args:
        rank: Rank of the factors.
    """

    def __init__(self, rank: int = 8) -> None:
        self.rank = rank

    def tune(self, model: nn.Module, target: str) -> Tuned:
        """Inject the factors and train nothing else of the backbone.

        Raises:
            LeftOutError: Without ``peft``, or for a backbone that is no plain ViT.
        """
        peft, backbone = import_peft(), model.get_submodule(target)
        if not is_plain_vit(backbone):
            raise LeftOutError(
                f'{type(backbone).__name__} is no plain ViT (linear layers behind one convolution that makes patches)'
            )
        targets = linear_layers(backbone)
        options = peft.LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=targets)
        peft.inject_adapter_in_model(options, backbone)
        factors = {'lora_A', 'lora_B'}
        whole = tuple(name for name, _ in backbone.named_parameters() if factors & set(name.split('.')))
        selection = Selection('lora', {}, whole, architecture_fingerprint(backbone), {'rank': self.rank})
        return Tuned(model, selection, FullTuning(), target)  # has nothing to inject: peft did


class UnmergedLora(Lora):
    """LoRA of the same size by :class:`mmgps.tuning.LoRA`, which computes ``w x + b (a x)`` and merges no weights.

    The benchmark measures it only if asked by name.
    """

    def tune(self, model: nn.Module, target: str) -> Tuned:
        method = LoRA(self.rank, parts=('qkv', 'proj', 'fc1', 'fc2', 'linear'))
        return Tuned(model, method.select(model.get_submodule(target)), method, target)


def import_peft() -> Any:
    """Import the package.

    Raises:
        LeftOutError: If it is not installed.
    """
    require('mmengine')  # also declares the operators that torchvision, which peft loads, may lack
    try:
        import peft
    except ModuleNotFoundError as error:
        if error.name != 'peft':
            raise
        raise LeftOutError('peft is not installed; run: pip install -c constraints.txt peft') from error
    return peft


def is_plain_vit(backbone: nn.Module) -> bool:
    """Tell whether every layer is linear except one convolution, the patch embedding."""
    owners = [entry.owner for entry in describe(backbone).values() if entry.role is Role.CONNECTION]
    convolutions = [owner for owner in owners if isinstance(owner, (*CONVOLUTIONS, *TRANSPOSED))]
    attention = any(isinstance(owner, nn.MultiheadAttention) for owner in owners)
    others = [o for o in owners if not isinstance(o, (nn.Linear, nn.MultiheadAttention, *CONVOLUTIONS, *TRANSPOSED))]
    return attention and len(convolutions) == 1 and not others


def linear_layers(backbone: nn.Module) -> list[str]:
    """Return the paths of all linear modules; the path of an attention stands for its projections."""
    attentions = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.MultiheadAttention)}
    inner = {id(part) for module in attentions.values() for part in module.modules()}
    linear = [n for n, m in backbone.named_modules() if isinstance(m, nn.Linear) and id(m) not in inner]
    return [*attentions, *linear]


@dataclass(frozen=True)
class Lean(Recipe):
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
"""Suffixes of method names, as in ``bias+lean``, and the options they stand for."""


def default_names(ks: Sequence[int]) -> list[str]:
    """Return the default methods: GPS compact at every K of ``ks``, and GPS masked at the first."""
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
                f'unknown method {name!r}, expected one of {", ".join(known)} (K may be any number), optionally '
                f'followed by one of {", ".join(ends)}; nearest: {near}'
            )
    found = [GPS_NAME.fullmatch(name.partition('+')[0]) for name in names]
    return sorted({int(match[2]) for match in found if match})


def recipe_of(name: str, selections: Mapping[int, Selection]) -> Recipe:
    """Build the recipe called ``name``; a GPS method takes the selection for its K from ``selections``."""
    if '+' in name:
        method, _, options = name.partition('+')
        return Lean(recipe_of(method, selections), LEAN[options])
    match = GPS_NAME.fullmatch(name)
    return Selected(selections[int(match[2])], SPARSE[match[1]]) if match else FIXED[name]()
