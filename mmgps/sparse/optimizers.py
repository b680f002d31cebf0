"""Optimizers: which of them suit compact training, hooks around their steps, and parameters that none may step.

An elementwise optimizer computes the step of each number from the history of that number alone, so it takes the same
steps for a few numbers of a weight as for the whole weight. An optimizer that treats a tensor as a whole (LARS and LAMB
by its norm, Adafactor by its rows, columns and scale, Muon as a matrix) takes steps of another length or direction for
the trained numbers alone. Unknown classes are refused.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from inspect import unwrap
from typing import Any, Protocol

from torch import nn, optim
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

ELEMENTWISE: tuple[type[Optimizer], ...] = (
    optim.SGD, optim.ASGD, optim.RMSprop, optim.Rprop, optim.Adagrad, optim.Adadelta, optim.Adam, optim.AdamW,
    optim.Adamax, optim.NAdam, optim.RAdam,
)  # fmt: skip


def is_elementwise(optimizer: Optimizer) -> bool:
    """True if ``optimizer`` is known to step each number by itself: one of torch's, or a subclass with its step."""
    kind = type(optimizer)
    return any(issubclass(kind, known) and unwrap(kind.step) is unwrap(known.step) for known in ELEMENTWISE)


def check_elementwise(optimizer: Optimizer) -> None:
    """Raise a ``ValueError`` with the class and the alternatives unless ``optimizer`` steps each number by itself."""
    if is_elementwise(optimizer):
        return
    name = type(optimizer).__name__
    if isinstance(optimizer, optim.LBFGS):
        raise ValueError(
            'LBFGS computes the loss again within its step, but an optimizer wrapper passes it no closure; choose an '
            f'optimizer that needs none: {_known()}'
        )
    raise ValueError(
        f'{name} is not known to step each number by itself, so compact training may differ from training the dense '
        f'weights; choose an optimizer of torch that does ({_known()}), or mmgps.MaskedTraining by training= of '
        f'mmgps.tune or sparse= of the hook, or, if {name} does so or you accept the difference, '
        'mmgps.CompactTraining there with any_optimizer=True'
    )


def _known() -> str:
    return ', '.join(kind.__name__ for kind in ELEMENTWISE)


class StepWatcher(Protocol):
    """Object that is called before and after each step of every optimizer, for as long as it lives."""

    def before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Called with the arguments of the step, the optimizer first; returns replacements for them, or None."""
        ...

    def after(self, optimizer: Optimizer) -> None: ...


class _Watchers:
    """All watchers, behind one pair of torch's hooks, which stays installed: torch iterates over its hooks directly."""

    def __init__(self) -> None:
        self._watchers: list[weakref.ref[StepWatcher]] = []
        self._installed = False

    def add(self, watcher: StepWatcher) -> None:
        """Call ``watcher`` around each step of an optimizer, until it is removed or nothing refers to it."""
        if not self._installed:
            register_optimizer_step_pre_hook(self._before)
            register_optimizer_step_post_hook(self._after)
            self._installed = True
        if watcher not in self._alive():
            self._watchers.append(weakref.ref(watcher))

    def remove(self, watcher: StepWatcher) -> None:
        """Stop calling ``watcher``."""
        self._watchers = [known for known in self._watchers if known() not in (None, watcher)]

    def _alive(self) -> list[StepWatcher]:
        return [watcher for known in self._watchers if (watcher := known()) is not None]

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for watcher in self._alive():
            args, kwargs = watcher.before(optimizer, args, kwargs) or (args, kwargs)
        return args, kwargs

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for watcher in self._alive():
            watcher.after(optimizer)


_watchers = _Watchers()
watch_steps, unwatch_steps = _watchers.add, _watchers.remove


class UnstartedError(RuntimeError):
    """An optimizer would step a guarded parameter, such as a whole weight of which only connections are selected."""


PARTLY = (
    'would move as a whole, although only single connections of them are selected: use mmgps.tune, or start() a '
    'CompactTraining before the first step'
)


class _Guard:
    """The parameters that no optimizer may step."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[weakref.ref[nn.Parameter], str]] = {}

    def add(self, values: Iterable[nn.Parameter], reason: str = PARTLY) -> None:
        """Refuse optimizer steps of ``values`` until :meth:`lift`; weights without a gradient are exempt."""
        for value in values:
            at = id(value)
            self._waiting[at] = weakref.ref(value, lambda _, at=at: self._waiting.pop(at, None)), reason  # type: ignore[misc]
        watch_steps(self)

    def lift(self, values: Iterable[nn.Parameter]) -> None:
        """Allow optimizer steps of ``values`` again."""
        for value in values:
            self._waiting.pop(id(value), None)

    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._waiting:
            return
        held = [value for group in optimizer.param_groups for value in group['params']]
        waiting = [(value, self._waiting[id(value)][1]) for value in held if id(value) in self._waiting]
        found = [(value, reason) for value, reason in waiting if value.grad is not None or reason is not PARTLY]
        if found:
            raise UnstartedError(
                f'{len(found)} parameters that {type(optimizer).__name__} holds, the first of shape '
                f'{tuple(found[0][0].shape)}, {found[0][1]}'
            )

    def after(self, optimizer: Optimizer) -> None:
        """Do nothing."""


_guard = _Guard()
guard, lift = _guard.add, _guard.lift
