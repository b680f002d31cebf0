"""The tensors that count as trained: freeze all others, and check that one optimizer holds each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from mmgps.selection import Selection, SelectionMismatchError
from mmgps.sparse import guard
from mmgps.utils.text import listed


class UntrainedError(RuntimeError):
    """Numbers that count as trained are not trained by any optimizer."""


@dataclass
class Trained:
    """A tensor that counts as trained, with the observations of the first iteration.

    Args:
        name: Name in the model.
        value: The tensor that the optimizer steps.
        layer: The weight that its layer computes with, if that is another tensor: the frozen weight whose chosen
            numbers ``value`` holds, or the weight of the layer that ``value`` was added to.
        chosen: Whether ``value`` holds chosen numbers of ``layer``.
    """

    name: str
    value: nn.Parameter
    layer: nn.Parameter | None = None
    chosen: bool = False
    reached: bool = False
    """A gradient arrived."""
    recorded: bool = False
    """An operation read ``value`` where gradients are recorded."""
    layer_recorded: bool = False
    """An operation read ``layer`` there."""
    unrecorded: bool = False
    """An operation read one of both where none are recorded."""
    layer_reached: bool = False
    """A gradient arrived at ``layer`` from outside of its layer."""
    read_directly: bool = False
    """An operation other than those of compact training read ``value``."""
    detached: bool = False
    """A result of ``value`` was detached on the way to the loss."""


def trained_tensors(
    model: nn.Module,
    replacements: Mapping[nn.Parameter, nn.Parameter],
    beside: Mapping[nn.Parameter, Sequence[nn.Parameter]],
) -> list[Trained]:
    """The tensors of ``model`` that count as trained.

    Args:
        model: The whole model, after freezing.
        replacements: Frozen weights to the parameters that hold their chosen numbers.
        beside: Weights of the base to the parameters that were added to their layers.
    """
    layers = {id(value): weight for weight, values in beside.items() for value in values}
    chosen = {id(value) for value in replacements.values()}
    found = []
    for name, value in model.named_parameters():
        if value in replacements:
            found.append(Trained(name, replacements[value], value, True))
        elif value.requires_grad and id(value) not in chosen:
            found.append(Trained(name, value, layers.get(id(value))))
    return [entry for entry in found if entry.value.numel()]


def check_held(trained: Sequence[Trained], optimizers: Sequence[Optimizer]) -> None:
    """Make sure that exactly one optimizer holds each of ``trained``.

    Raises:
        UntrainedError: Names tensors that no optimizer holds, or several.
    """
    if not trained:
        raise UntrainedError(
            'nothing is trained: the method trains nothing of the backbone, and everything outside of it is frozen; '
            'let requires_grad of the head be True, or choose another method'
        )
    held = Counter(id(value) for optimizer in optimizers for value in set(held_by(optimizer)))
    lost = [entry.name for entry in trained if not held[id(entry.value)]]
    if lost:
        raise UntrainedError(
            f'{len(lost)} tensors are counted as trained and no optimizer holds them: {listed(lost)}; let the '
            'optimizer hold them, or freeze them by requires_grad_(False)'
        )
    twice = [entry for entry in trained if held[id(entry.value)] > 1]
    if twice:
        kinds = [type(opt).__name__ for opt in optimizers if any(v is twice[0].value for v in held_by(opt))]
        raise UntrainedError(
            f'{len(twice)} tensors are held by more than one optimizer ({", ".join(kinds)}), and each would step them: '
            f'{listed([entry.name for entry in twice])}; let one of them hold each tensor'
        )


def resting(trained: Sequence[Trained], optimizers: Sequence[Optimizer]) -> list[str]:
    """Names of tensors that an optimizer holds at a learning rate of zero, apart from its schedule."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    still = [group for group in groups if not float(group.get('initial_lr', group.get('lr', 1)))]
    ids = {id(value) for group in still for value in group['params']}
    return [entry.name for entry in trained if id(entry.value) in ids]


def kept_elsewhere(optimizer: Optimizer) -> str | None:
    """The attribute in which ``optimizer`` keeps parameters besides its ``param_groups``; None if there is none.

    Such an optimizer steps the parameters in that attribute. New parameters in its groups do not reach it.
    """
    seen = {id(optimizer.param_groups)} | {id(part) for g in optimizer.param_groups for part in (g, g['params'])}
    for name, kept in vars(optimizer).items():
        if name not in ('state', 'defaults') and next(_parameters_in(kept, seen), None) is not None:
            return name
    return None


def held_by(optimizer: Optimizer) -> list[nn.Parameter]:
    return [value for group in optimizer.param_groups for value in group['params']]


def _parameters_in(kept: Any, seen: set[int]) -> Iterator[nn.Parameter]:
    """Parameters within containers and optimizers that are not ``seen`` yet."""
    if isinstance(kept, nn.Parameter):
        yield kept
    elif isinstance(kept, Mapping | list | tuple | set | frozenset | Optimizer) and id(kept) not in seen:
        seen.add(id(kept))
        if isinstance(kept, Optimizer):
            kept = {name: part for name, part in vars(kept).items() if name != 'state'}
        for part in [*kept.keys(), *kept.values()] if isinstance(kept, Mapping) else kept:
            yield from _parameters_in(part, seen)


def freeze_unselected(backbone: nn.Module, selection: Selection) -> list[nn.Parameter]:
    """Freeze every parameter of ``backbone`` of which the selection trains nothing, and unfreeze the others.

    Until a :class:`SparseTraining` starts, an optimizer that steps a weight with selected connections raises an error.

    Returns:
        The frozen parameters.

    Raises:
        SelectionMismatchError: If the selection was made for another architecture; nothing is changed then.
    """
    partly = {parameter.name: parameter.value for parameter, _ in selection.resolve(backbone)}
    trained = {*partly, *selection.whole}
    guard(partly.values())
    frozen = []
    for name, value in backbone.named_parameters():
        value.requires_grad_(name in trained)
        if name not in trained:
            frozen.append(value)
    return frozen


def check_trainable(backbone: nn.Module, selection: Selection) -> None:
    """Make sure that ``selection`` trains nothing of ``backbone`` that the user froze.

    Raises:
        SelectionMismatchError: Names the frozen parameters.
    """
    trained = {*selection.connections, *selection.whole}
    frozen = [name for name, value in backbone.named_parameters() if name in trained and not value.requires_grad]
    if frozen:
        raise SelectionMismatchError(
            f'the selection trains {len(frozen)} parameters that {type(backbone).__name__} was built with frozen: '
            f'{", ".join(frozen)}; select anew, or build the backbone as it was when the selection was made '
            '(frozen_stages and the like)'
        )
