"""Find trained numbers that get no gradient in the first iteration.

Some are harmless, such as a branch that the network does not run in training. Others are cut off: by a reentrant
checkpoint whose input needs no gradient, by ``torch.no_grad`` or ``detach`` on the way to the loss, or by a module that
reads the weight of a layer without calling it. :class:`ReadWatcher` tells them apart. All hooks are removed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mmgps.rewiring import Call
from mmgps.sparse import registered_in
from mmgps.utils.text import listed

from .trained import ReadWatcher, Trained, UntrainedError, held_by

PATIENCE = 100
"""Steps of other optimizers after which an optimizer without a step is an error."""
UNKNOWN = -1
"""Index of an optimizer that was not given to :meth:`FirstIteration.add` yet."""
FLAGS = ('reached', 'recorded', 'layer_recorded', 'unrecorded', 'detached', 'read_directly', 'layer_reached')

CAUSES: Sequence[tuple[Callable[[Trained], bool], str]] = (
    (
        lambda entry: entry.unrecorded and not entry.recorded,
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


class FirstIteration:
    """Watches the first training iteration of a model.

    Build it when everything is in place, run an iteration, and call :meth:`finish`. Repeat this until it returns True:
    optimizers may take their first steps at different times.

    Args:
        model: The network, without a wrapper.
        trained: See :func:`trained_tensors`.
        optimizers: The optimizers that hold them and are already known.
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
        registered = set(map(id, registered_in(model)))
        self._registered = [entry for entry in trained if entry.chosen and id(entry.value) in registered]
        self._layers_watched = False
        self._reads = ReadWatcher(trained)
        self._depth = 0
        self._handles = [
            *(entry.value.register_hook(self._marker(entry)) for entry in trained),  # type: ignore[no-untyped-call]
            *(hook for root in _roots(model, target) for hook in self._watch(root)),
        ]
        for optimizer in optimizers:
            self.add(optimizer)

    def add(self, optimizer: Optimizer) -> None:
        """Watch one more optimizer, which has not stepped yet."""
        at = len(self._names)
        self._owner |= {id(value): at for value in held_by(optimizer) if id(value) in self._counted}
        self._names.append(type(optimizer).__name__)
        self._steps.append(0)
        self._counters.append(optimizer.register_step_pre_hook(self._counter(at)))

    def finish(self) -> tuple[bool, list[str]]:
        """Judge the tensors after an iteration; all processes of a distributed run must call it.

        Returns:
            Whether all tensors are judged, after which nothing is watched; and the names of tensors that the network
            does not use in this mode.

        Raises:
            UntrainedError: Names the tensors that are cut off, and the cause.
        """
        self._reads.find_detached()
        _share(self._trained, self._steps)
        self._check_counted_once()
        owners = [self._owner.get(id(entry.value), UNKNOWN) for entry in self._trained]
        active = {at for at, entry in zip(owners, self._trained, strict=True) if entry.reached} - {UNKNOWN}
        active |= {at for at, steps in enumerate(self._steps) if steps}
        fresh = [entry for at, entry in zip(owners, self._trained, strict=True) if at in active - self._judged]
        self._judged |= active
        unused = self._judge(fresh)
        known = UNKNOWN not in owners
        if known and self._judged >= set(self._owner.values()):
            self._stop_watching()
        idle = [at for at in set(self._owner.values()) if not self._steps[at]]
        if idle and max(self._steps) >= PATIENCE:
            names = [entry.name for at, entry in zip(owners, self._trained, strict=True) if at in idle]
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

    def _check_counted_once(self) -> None:
        """Refuse a loss that reads weights and their registered connections, which would get both gradients."""
        twice = [e.name for e in self._registered if e.layer_reached and (e.read_directly or not e.layer_recorded)]
        if twice:
            raise UntrainedError(
                f'the loss reads {len(twice)} weights outside their layers, and some of their connections are trained: '
                f'{listed(twice)}; a penalty over model.parameters() would count those twice: take tuned.parameters() '
                'instead. If it is no penalty, read them within forward of the model, or train by mmgps.MaskedTraining'
            )

    def _watch(self, root: nn.Module) -> Iterator[Any]:
        yield root.register_forward_pre_hook(Call(self._enter), prepend=True)
        yield root.register_forward_hook(Call(self._leave), always_call=True)

    def _enter(self) -> None:
        if (self._depth or torch.is_grad_enabled()) and not _compiling():  # drawing a picture is not training
            self._depth += 1
            if self._depth == 1:
                self._watch_layers()
                self._reads.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self) -> None:
        if self._depth:
            self._depth -= 1
            if not self._depth:
                self._reads.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _watch_layers(self) -> None:
        """Mark weights that get a gradient of their own; they require one from the first forward pass on."""
        for entry in self._registered if not self._layers_watched else ():
            layer = entry.layer
            if layer is not None and layer.requires_grad:
                mark = partial(setattr, entry, 'layer_reached')
                self._handles.append(layer.register_hook(lambda _, mark=mark: mark(True)))  # type: ignore[no-untyped-call]
        self._layers_watched = True

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


def unused_message(unused: Sequence[str]) -> str:
    """The warning about trained tensors that the network does not use in this mode."""
    return (
        f'{len(unused)} tensors count as trained and take no part in the first iteration: {", ".join(unused)}; they '
        'keep their values as long as training does not use them'
    )


def _sentence(names: Sequence[str], total: int, cause: str) -> str:
    return f'{len(names)} of {total} trained tensors got no gradient in the first iteration: {listed(names)}; {cause}'
