"""The steps of all optimizers of the program: who watches them, and parameters that none may step."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class StepWatcher(Protocol):
    """Is asked before and told after each step of every optimizer, for as long as it lives."""

    def before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Called with the arguments of the step, the optimizer first among them; returns others to be used, or None."""
        ...

    def after(self, optimizer: Optimizer) -> None: ...


class _Watchers:
    """The watchers, behind one pair of torch's hooks that stays: torch goes through its hooks while these run."""

    def __init__(self) -> None:
        self._watchers: list[weakref.ref[StepWatcher]] = []
        self._installed = False

    def add(self, watcher: StepWatcher) -> None:
        if not self._installed:
            register_optimizer_step_pre_hook(self._before)
            register_optimizer_step_post_hook(self._after)
            self._installed = True
        if watcher not in self._alive():
            self._watchers.append(weakref.ref(watcher))

    def remove(self, watcher: StepWatcher) -> None:
        self._watchers = [known for known in self._watchers if known() not in (None, watcher)]

    def _alive(self) -> list[StepWatcher]:
        found = [known() for known in self._watchers]
        return [watcher for watcher in found if watcher is not None]

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = False
        for watcher in self._alive():
            given = watcher.before(optimizer, args, kwargs)
            if given is not None:
                (args, kwargs), changed = given, True
        return (args, kwargs) if changed else None

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for watcher in self._alive():
            watcher.after(optimizer)


_watchers = _Watchers()


def watch_steps(watcher: StepWatcher) -> None:
    """Ask ``watcher`` before each step of an optimizer, until :func:`unwatch_steps` or until nothing refers to it."""
    _watchers.add(watcher)


def unwatch_steps(watcher: StepWatcher) -> None:
    """Ask ``watcher`` no more."""
    _watchers.remove(watcher)


class UnstartedError(RuntimeError):
    """An optimizer holds weights of which only chosen connections are to be trained, or what nothing trains."""


PARTLY = (
    'would move as a whole, while single connections of them are selected and nothing trains these: use mmgps.tune, or '
    'start() a CompactTraining before the first step'
)


class _Guard:
    """Knows the parameters that no optimizer may step."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[weakref.ref[nn.Parameter], str]] = {}

    def add(self, values: Iterable[nn.Parameter], reason: str) -> None:
        for value in values:
            at = id(value)
            self._waiting[at] = weakref.ref(value, lambda _, at=at: self._waiting.pop(at, None)), reason  # type: ignore[misc]
        watch_steps(self)

    def lift(self, values: Iterable[nn.Parameter]) -> None:
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
                f'{len(found)} parameters that {type(optimizer).__name__} holds, first one of shape '
                f'{tuple(found[0][0].shape)}, {found[0][1]}'
            )

    def after(self, optimizer: Optimizer) -> None:
        """Nothing."""


_guard = _Guard()


def guard(values: Iterable[nn.Parameter], reason: str = PARTLY) -> None:
    """Refuse optimizer steps of ``values`` until :func:`lift`; weights without a gradient aside."""
    _guard.add(values, reason)


def lift(values: Iterable[nn.Parameter]) -> None:
    """Allow optimizer steps of ``values`` again."""
    _guard.lift(values)
