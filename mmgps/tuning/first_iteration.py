"""Find trained numbers that get no gradient in the first iteration.

Some are harmless, such as a branch that the network does not run in training. Others are cut off: by a reentrant
checkpoint whose input needs no gradient, by ``torch.no_grad`` or ``detach`` on the way to the loss, by a module that
reads the weight of a layer without calling it. :class:`ReadWatcher` tells them apart. All
hooks are removed afterwards.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from mmgps.rewiring import Call
from mmgps.utils.text import listed

from .trained import Trained, UntrainedError, held_by

PATIENCE = 100
"""Steps of other optimizers after which an optimizer without a step is an error."""
UNKNOWN = -1
"""Stands for an optimizer that :meth:`FirstIteration.add` was not told of yet."""
FLAGS = ('reached', 'recorded', 'layer_recorded', 'unrecorded', 'detached')

CAUSES: Sequence[tuple[Callable[[Trained], bool], str]] = (
    (
        lambda entry: entry.unrecorded and not (entry.layer_recorded if entry.chosen else entry.recorded),
        'they compute where no gradients are recorded: within torch.no_grad, or within a reentrant checkpoint whose '
        'input needs no gradient since all before it is frozen; leave out use_checkpoint or with_cp of the backbone, '
        'or let it call torch.utils.checkpoint with use_reentrant=False',
    ),
    (
        lambda entry: entry.layer_recorded and not entry.recorded,
        'the weights of their layers are read by another module, which never calls the layers, so that attached '
        'modules and values do not run; choose other layers or another method, or for connections set '
        "sparse=dict(type='mmgps.MaskedTraining') of the hook",
    ),
    (
        lambda entry: entry.detached,
        'their results are detached on the way to the loss (detach, .data or torch.no_grad); let gradients pass, or '
        'freeze everything before',
    ),
)
"""Reasons why a tensor got no gradient, in the order in which they are checked."""
DETACHING = {'detach', 'detach_', 'data'}


class FirstIteration:
    """Watches the first training iteration of a model.

    Build it when everything is in place, run an iteration, and call :meth:`finish`. Repeat until it says that all is
    known: optimizers may take their first steps at different times.

    Args:
        model: The network, without a wrapper.
        trained: See :func:`trained_tensors`.
        optimizers: The optimizers that hold them, as far as they are known.
        target: Path of the backbone, which must get some gradient if any of it is trained.
    """

    def __init__(
        self, model: nn.Module, trained: Sequence[Trained], optimizers: Sequence[Optimizer], target: str
    ) -> None:
        self._trained, self._target = trained, target
        self._counted = {id(entry.value) for entry in trained}
        self._owner: dict[int, int] = {}
        self._names: list[str] = []
        self._steps: list[int] = []
        self._counters: list[Any] = []
        self._judged: set[int] = set()
        self._reads = ReadWatcher(trained)
        self._depth = 0
        self._handles = [
            *(entry.value.register_hook(self._marker(entry)) for entry in trained),  # type: ignore[no-untyped-call]
            *(hook for root in _roots(model, target) for hook in self._watch(root)),
        ]
        for optimizer in optimizers:
            self.add(optimizer)

    def add(self, optimizer: Optimizer) -> None:
        """Know of one more optimizer, from before its first step on."""
        at = len(self._names)
        self._owner |= {id(value): at for value in held_by(optimizer) if id(value) in self._counted}
        self._names.append(type(optimizer).__name__)
        self._steps.append(0)
        self._counters.append(optimizer.register_step_pre_hook(self._counter(at)))

    def finish(self) -> tuple[bool, list[str]]:
        """Judge the tensors after an iteration; all processes of a distributed run must call it.

        Returns:
            Whether all tensors are judged, after which nothing is watched any more; and the names of tensors that the
            network does not use in this mode.

        Raises:
            UntrainedError: Names the tensors that are cut off, and the cause.
        """
        self._reads.find_detached()
        _share(self._trained, self._steps)
        active = {self._owner.get(id(entry.value), UNKNOWN) for entry in self._trained if entry.reached} - {UNKNOWN}
        active |= {at for at, steps in enumerate(self._steps) if steps}
        fresh = [e for e in self._trained if self._owner.get(id(e.value), UNKNOWN) in active - self._judged]
        self._judged |= active
        unused = self._judge(fresh)
        known = all(id(entry.value) in self._owner for entry in self._trained)
        if known and self._judged >= set(self._owner.values()):
            self._stop_watching()
        idle = [at for at in set(self._owner.values()) if not self._steps[at]]
        if idle and max(self._steps) >= PATIENCE:
            names = [entry.name for entry in self._trained if self._owner.get(id(entry.value)) in idle]
            raise UntrainedError(
                f'{self._names[idle[0]]} has not stepped once while another optimizer made {max(self._steps)} steps, '
                f'and {len(names)} tensors that it holds are counted as trained: {listed(names)}; call update_params '
                'of its wrapper in train_step of the model, or freeze them'
            )
        done = known and not idle
        if done:
            self.close()
        return done, unused

    def check_loss(self, loss: Tensor) -> None:
        """Make sure that ``loss``, about to be differentiated, depends on trained tensors.

        Raises:
            UntrainedError: Names the tensors that are cut off, and the cause.
        """
        if not loss.requires_grad:
            self._reads.find_detached()
            names = self._judge(self._trained)
            raise UntrainedError(_sentence(names, len(self._trained), 'none of them takes part in the loss'))

    def close(self) -> None:
        """Stop watching."""
        self._stop_watching()
        for handle in self._counters:
            handle.remove()
        self._counters = []

    def _stop_watching(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _judge(self, entries: Sequence[Trained]) -> list[str]:
        lost = [entry for entry in entries if not entry.reached]
        for cut, cause in CAUSES:
            names = [entry.name for entry in lost if cut(entry)]
            if names:
                raise UntrainedError(_sentence(names, len(self._trained), cause))
        inside = [entry for entry in entries if f'{entry.name}.'.startswith(f'{self._target}.') or not self._target]
        if inside and not any(entry.reached for entry in inside):
            cause = 'nothing of the backbone takes part in the loss; check what the head reads'
            raise UntrainedError(_sentence([entry.name for entry in inside], len(self._trained), cause))
        return [entry.name for entry in lost]

    def _watch(self, root: nn.Module) -> Iterator[Any]:
        yield root.register_forward_pre_hook(Call(self._enter), prepend=True)
        yield root.register_forward_hook(Call(self._leave), always_call=True)

    def _enter(self) -> None:
        if (self._depth or torch.is_grad_enabled()) and not _compiling():  # a picture drawn meanwhile is not training
            self._depth += 1
            if self._depth == 1:
                self._reads.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self) -> None:
        if self._depth:
            self._depth -= 1
            if not self._depth:
                self._reads.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @staticmethod
    def _marker(entry: Trained) -> Callable[[Tensor | None], None]:
        def mark(gradient: Tensor | None) -> None:
            entry.reached |= gradient is not None

        return mark

    def _counter(self, at: int) -> Callable[..., None]:
        def count(*_: Any) -> None:
            self._steps[at] += 1

        return count


def _roots(model: nn.Module, target: str) -> list[nn.Module]:
    """The model, its children and the backbone: a train_step may call any of them."""
    found = [model, *model.children(), *([model.get_submodule(target)] if target else [])]
    return list({id(module): module for module in found}.values())


def _share(trained: Sequence[Trained], steps: list[int]) -> None:
    """Share the observations of all processes: gradients are averaged over them."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    rows = [float(getattr(entry, flag)) for entry in trained for flag in FLAGS]
    seen = torch.tensor([*rows, *map(float, steps)], device=trained[0].value.device)
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    flags = seen.tolist()
    for at, entry in enumerate(trained):
        for flag, found in zip(FLAGS, flags[at * len(FLAGS) :], strict=False):
            setattr(entry, flag, bool(found))
    steps[:] = map(int, flags[len(rows) :])


def _compiling() -> bool:
    asked = getattr(torch.compiler, 'is_compiling', None)
    return bool(asked()) if asked is not None else False


def _sentence(names: Sequence[str], total: int, cause: str) -> str:
    return f'{len(names)} of {total} trained tensors got no gradient in the first iteration: {listed(names)}; {cause}'


class ReadWatcher(TorchFunctionMode):
    """Notes which operations read the trained tensors, and which results were detached on the way to the loss."""

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
        output = func(*args, **(kwargs or {}))
        inputs = [*_tensors((*args, *(kwargs or {}).values()))]
        outputs = [*_tensors((output,))]
        name = _name_of(func)
        if outputs or name == 'requires_grad':  # which the layers of compact training ask, and autograd goes on from
            self._note_reads(inputs, bool(outputs) and name not in DETACHING, bool(outputs))
        if outputs and not name.startswith('new_') and not name.endswith('_like'):
            self._follow(inputs, outputs, name in DETACHING or not torch.is_grad_enabled())
        return output

    def _note_reads(self, inputs: Sequence[Tensor], computes: bool, gives: bool) -> None:
        """Note which trained tensors an operation reads.

        Args:
            inputs: Inputs of the operation.
            computes: Whether it does more than detach them, as the layers of compact training do.
            gives: Whether it returns a tensor.
        """
        recording = torch.is_grad_enabled()
        for value in inputs:
            entry = self._values.get(id(value))
            if entry is not None and (gives or entry.chosen):
                entry.recorded |= recording
                entry.unrecorded |= not recording
            for entry in self._layers.get(id(value), ()) if computes else ():
                entry.layer_recorded |= recording
                entry.unrecorded |= not recording

    def _follow(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cuts: bool) -> None:
        """Note that ``outputs`` depend on detached tensors, and where those meet recorded operations."""
        before = [found for value in inputs if (found := self._detached.get(id(value))) and found.tensor() is value]
        if not before and not cuts:
            return
        inherited = [node for found in before for node in found.inherited]
        for found in before:  # what needs a gradient by now came out of a Function that passes its own gradients on
            value = found.tensor()
            inherited += [] if value is None or value.requires_grad else found.direct
        inherited = list(dict.fromkeys(inherited))
        if any(value.requires_grad for value in outputs):
            self._cuts += inherited
        here = [value.grad_fn or value for value in inputs if value.requires_grad] if cuts else []
        for value in outputs:
            if value.is_floating_point() and not value.requires_grad:
                self._detached[id(value)] = Detached(weakref.ref(value), here, inherited)

    def find_detached(self) -> None:
        """Mark the trained tensors of which a result was detached on the way to the loss."""
        seen: set[Any] = set()
        waiting, self._cuts, self._detached = self._cuts, [], {}
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            leaf = node if isinstance(node, Tensor) else getattr(node, 'variable', None)
            entry = self._values.get(id(leaf))
            if entry is not None:
                entry.detached = True
            waiting += [before for before, _ in getattr(node, 'next_functions', ()) if before is not None]


@dataclass(frozen=True)
class Detached:
    """The origins, with gradients, of a tensor without a gradient: nodes of the graph, and leaves.

    Args:
        tensor: The tensor.
        direct: Inputs of the operation that made it.
        inherited: Origins of these, from earlier operations.
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
