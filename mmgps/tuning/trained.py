"""The tensors that count as trained: the optimizers that hold them, and the operations that read them."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from mmgps.utils.text import listed


class UntrainedError(RuntimeError):
    """Numbers that count as trained are not trained by any optimizer."""


@dataclass
class Trained:
    """A tensor that counts as trained, with the observations of the first iteration.

    Args:
        name: Name in the model.
        value: The tensor that the optimizer steps.
        layer: The weight with which its layer computes, if that is another tensor: the frozen weight whose chosen
            numbers ``value`` holds, or the weight of the layer to which ``value`` was added.
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
    """An operation read ``layer`` where gradients are recorded."""
    unrecorded: bool = False
    """An operation read ``value`` or ``layer`` where no gradients are recorded."""
    layer_reached: bool = False
    """A gradient arrived at ``layer`` from outside its layer."""
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
            'nothing is trained: the method trains nothing of the backbone, and everything outside it is frozen; '
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
    """The parameters in all groups of ``optimizer``."""
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


DETACHING = {'detach', 'detach_', 'data'}


class ReadWatcher(TorchFunctionMode):
    """Note which operations read the trained tensors, and which results are detached on the way to the loss."""

    def __init__(self, trained: Sequence[Trained]) -> None:
        super().__init__()
        self._values = {id(entry.value): entry for entry in trained}
        self._layers: dict[int, list[Trained]] = {}
        for entry in trained:
            if entry.layer is not None:
                self._layers.setdefault(id(entry.layer), []).append(entry)
        self._detached: dict[int, Detached] = {}
        self._cuts: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs, name = [*_tensors((*args, *(kwargs or {}).values()))], _name_of(func)
        cuts = name in DETACHING or not torch.is_grad_enabled()
        cut = [value.grad_fn or value for value in inputs if value.requires_grad] if cuts else []  # detach_ drops it
        output = func(*args, **(kwargs or {}))
        outputs = [*_tensors((output,))]
        if outputs or name == 'requires_grad':  # compact layers read it before their autograd functions run
            self._note_reads(inputs, bool(outputs) and name not in DETACHING, bool(outputs))
        if outputs and not name.startswith('new_') and not name.endswith('_like'):
            self._follow(inputs, outputs, cut)
        return output

    def _note_reads(self, inputs: Sequence[Tensor], computes: bool, gives: bool) -> None:
        """Note which trained tensors are among ``inputs`` of an operation.

        Args:
            inputs: Inputs of the operation.
            computes: Whether it does more than detach them, which the layers of compact training do.
            gives: Whether it returns a tensor.
        """
        recording = torch.is_grad_enabled()
        for value in inputs:
            entry = self._values.get(id(value))
            if entry is not None and (gives or entry.chosen):
                entry.recorded |= recording
                entry.unrecorded |= not recording
                entry.read_directly |= recording and gives and computes
            for entry in self._layers.get(id(value), ()) if computes else ():
                entry.layer_recorded |= recording
                entry.recorded |= recording and entry.chosen  # a read of the weight itself sends its gradient back
                entry.unrecorded |= not recording

    def _follow(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cut: Sequence[Any]) -> None:
        """Note that ``outputs`` depend on detached tensors, and where those meet recorded operations.

        ``cut`` are the nodes and leaves from which the operation cuts its outputs off.
        """
        before = [found for value in inputs if (found := self._detached.get(id(value))) and found.tensor() is value]
        if not before and not cut:
            return
        inherited = [node for found in before for node in found.inherited]
        for found in before:  # a tensor that needs a gradient by now is the result of an autograd Function
            value = found.tensor()
            inherited += [] if value is None or value.requires_grad else found.direct
        inherited = list(dict.fromkeys(inherited))
        if any(value.requires_grad for value in outputs):
            self._cuts += inherited
        for value in outputs:
            if value.is_floating_point() and not value.requires_grad:
                self._detached[id(value)] = Detached(weakref.ref(value), cut, inherited)

    def find_detached(self) -> None:
        """Mark the trained tensors with a result that was detached on the way to the loss."""
        seen: set[Any] = set()
        waiting, self._cuts, self._detached = self._cuts, [], {}
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            leaf = node if isinstance(node, Tensor) else getattr(node, 'variable', None)
            if (entry := self._values.get(id(leaf))) is not None:
                entry.detached = True
            for entry in self._layers.get(id(leaf), ()):  # compact training detaches too, but computes nothing
                entry.detached |= entry.layer_recorded
            waiting += [before for before, _ in getattr(node, 'next_functions', ()) if before is not None]


@dataclass(frozen=True)
class Detached:
    """The origins, with gradients, of a tensor without a gradient: nodes of the graph, and leaves.

    Args:
        tensor: The tensor.
        direct: Inputs of the operation that made it.
        inherited: Origins of these inputs, from earlier operations.
    """

    tensor: weakref.ref[Tensor]
    direct: Sequence[Any]
    inherited: Sequence[Any]


def _name_of(func: Any) -> str:
    """``detach`` of ``Tensor.detach``, ``data`` of the property ``Tensor.data``."""
    name = getattr(func, '__name__', '')
    return getattr(getattr(func, '__self__', None), '__name__', '') if name == '__get__' else name


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
