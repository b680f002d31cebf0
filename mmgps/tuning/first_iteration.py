"""Notice trained numbers that get no gradient in the first iteration.

Some are harmless, such as a branch that the network does not run in training. Others are cut off: by a reentrant
checkpoint whose input needs no gradient, by ``torch.no_grad`` or ``detach`` on the way to the loss, by a module that
reads the weight of a layer without calling it. :class:`mmgps.tuning.reads.Reads` tells them apart. All hooks are gone
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mmgps.sparse.forward import Call

from .reads import Reads
from .trained import Trained, UntrainedError, held_by, listed

PATIENCE = 100
"""Steps of other optimizers after which one that has not stepped yet is an error."""
FLAGS = ('reached', 'recorded', 'layer_recorded', 'unrecorded', 'detached')


CAUSES: Sequence[tuple[Callable[[Trained], bool], str]] = (
    (
        lambda entry: entry.unrecorded and not entry.recorded,
        'they compute where no gradients are recorded: within torch.no_grad, or within a reentrant checkpoint whose '
        'input needs no gradient since all before it is frozen; leave out use_checkpoint or with_cp of the backbone, '
        'or let it call torch.utils.checkpoint with use_reentrant=False',
    ),
    (
        lambda entry: entry.layer_recorded and not entry.recorded,
        'the weights of their layers are read by another module, which never calls the layers, so that what was '
        'attached to them does not run; choose other layers or another method, or for connections set '
        "sparse=dict(type='mmgps.MaskedTraining') of the hook",
    ),
    (
        lambda entry: entry.detached,
        'what is computed from them is detached on the way to the loss (detach, .data or torch.no_grad); let gradients '
        'pass, or freeze what lies before',
    ),
)
"""Reasons why a tensor got no gradient, in the order in which they are asked for."""


class FirstIteration:
    """Watches the first training iteration of a model.

    Build it when everything is in place, run an iteration, and call :meth:`finish`; go on until that says that all is
    known: an optimizer may have its first step later than another.

    Args:
        model: The network, without a wrapper.
        trained: See :func:`trained_tensors`.
        optimizers: Which hold them.
        target: Path of the backbone, which has to get some gradient if any of it is trained.
    """

    def __init__(
        self, model: nn.Module, trained: Sequence[Trained], optimizers: Sequence[Optimizer], target: str
    ) -> None:
        self._trained, self._target = trained, target
        counted = {id(entry.value) for entry in trained}
        self._owner = {id(v): at for at, opt in enumerate(optimizers) for v in held_by(opt) if id(v) in counted}
        self._names = [type(optimizer).__name__ for optimizer in optimizers]
        self._steps = [0] * len(optimizers)
        self._judged: set[int] = set()
        self._reads = Reads(trained)
        self._depth = 0
        self._handles = [
            *(entry.value.register_hook(self._marker(entry)) for entry in trained),  # type: ignore[no-untyped-call]
            *(hook for root in _roots(model, target) for hook in self._watch(root)),
        ]
        self._counters = [opt.register_step_pre_hook(self._counter(at)) for at, opt in enumerate(optimizers)]

    def finish(self) -> tuple[bool, list[str]]:
        """Judge what is known after an iteration, of which all processes of a distributed run have to ask.

        Returns:
            Whether all is known by now, when nothing watches any more; and the names of tensors that the network does
            not use in this mode.

        Raises:
            UntrainedError: Names the tensors that are cut off, and by what.
        """
        self._reads.find_detached()
        _share(self._trained, self._steps)
        active = {self._owner[id(entry.value)] for entry in self._trained if entry.reached}
        active |= {at for at, steps in enumerate(self._steps) if steps}
        fresh = [e for e in self._trained if self._owner[id(e.value)] in active - self._judged]
        self._judged |= active
        unused = self._judge(fresh)
        if self._judged >= set(self._owner.values()):
            self._stop_watching()
        idle = [at for at in set(self._owner.values()) if not self._steps[at]]
        if idle and max(self._steps) >= PATIENCE:
            names = [entry.name for entry in self._trained if self._owner[id(entry.value)] in idle]
            raise UntrainedError(
                f'{self._names[idle[0]]} has not stepped once while another optimizer made {max(self._steps)} steps, '
                f'and {len(names)} tensors that it holds are counted as trained: {listed(names)}; call update_params '
                'of its wrapper in train_step of the model, or freeze them'
            )
        if not idle:
            self.close()
        return not idle, unused

    def check_loss(self, loss: Tensor) -> None:
        """Make sure that a ``loss``, about to be differentiated, hangs on something that is trained.

        Raises:
            UntrainedError: Names the tensors that are cut off, and by what.
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
    """The model, its parts and the backbone: a train_step may call any of them."""
    found = [model, *model.children(), *([model.get_submodule(target)] if target else [])]
    return list({id(module): module for module in found}.values())


def _share(trained: Sequence[Trained], steps: list[int]) -> None:
    """Let every process know what any saw: gradients are averaged over all of them."""
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
