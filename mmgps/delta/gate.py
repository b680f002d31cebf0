"""The gate of a network: one owner and one thread at a time may apply deltas."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import TypeVar

from torch import nn

T = TypeVar('T')
Mark = tuple[int, CodeType]
POLL_S = 0.5
"""Seconds after which a waiting thread checks again whether the other thread is alive."""
SUSPENDED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


class DeltaInUseError(RuntimeError):
    """A delta would change while other code computes with the applied one."""


@dataclass(eq=False)
class Visit:
    """An open context in which the delta ``name`` is applied.

    Args:
        name: Name of the delta, None for the base.
        before: Name of the delta before the context, which returns afterwards.
        frame: The frame that opened the context, see :func:`mark`.
        thread: Its thread.
        put: Applies the delta of a name.
        abandoned: Whether the context ended without being left, as in a collected generator.
    """

    name: str | None
    before: str | None
    frame: Mark
    thread: threading.Thread
    put: Callable[[str | None], None]
    abandoned: bool = False


class Gate:
    """The lock of one network.

    Threads wait until no other thread has an open context. Contexts of one delta may overlap freely within a thread. A
    context of another delta opens only inside the code that opened the others, not in another coroutine or generator,
    since that code would continue with wrong numbers.
    """

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self._owner: weakref.ref[object] | None = None
        self._what = ''
        # re-entrant, since Python may collect a generator with an open context while a delta changes
        self._mutex = threading.RLock()
        self._changing: Mark | None = None
        self._waiting: list[threading.Lock] = []

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work``, which changes the network, when no other thread has an open context.

        Raises:
            DeltaInUseError: If the thread with the open context ended without leaving it, or within another change.
        """
        while True:
            with self._mutex:
                self._sweep()
                if not self.visits or self.visits[-1].thread is threading.current_thread():
                    return self._alone(work)
                self._check_alive()
                waiter = threading.Lock()
                waiter.acquire()
                self._waiting.append(waiter)
            waiter.acquire(timeout=POLL_S)

    def leave(self, visit: Visit) -> None:
        """Restore the delta before ``visit``, unless that was done already."""
        with self._mutex:
            if visit not in self.visits:
                return
            if visit is self.visits[-1]:
                self._alone(lambda: visit.put(visit.before))
            else:
                self.visits[self.visits.index(visit) + 1].before = visit.before
            self.visits.remove(visit)
            while not self.visits and self._waiting:
                self._waiting.pop().release()

    def abandon(self, visit: Visit) -> None:
        """Leave ``visit`` now, or before the next change if one is in progress."""
        visit.abandoned = True
        if self._mutex.acquire(blocking=False):
            try:
                if not self._is_changing():
                    self._sweep()
            finally:
                self._mutex.release()

    def claim(self, owner: object, what: str) -> None:
        """Register ``owner`` as the owner of the applied delta, until :meth:`release` or the end of its life.

        Args:
            owner: A bank or an applied delta.
            what: Its description, for the error of another owner.

        Raises:
            DeltaInUseError: If another owner has applied a delta.
        """
        self.check_owner(owner)
        self._what, self._owner = what, weakref.ref(owner)

    def check_owner(self, owner: object) -> None:
        """Make sure that no other owner has applied a delta.

        Raises:
            DeltaInUseError: If one has.
        """
        other = None if self._owner is None else self._owner()
        if other is not None and other is not owner:
            raise DeltaInUseError(f'{self._what} is applied to this network; remove it before you apply another one')

    def release(self, owner: object) -> None:
        """Let other owners apply deltas."""
        if self._owner is not None and self._owner() is owner:
            self._owner = None

    def check_nested(self, name: str | None) -> None:
        """Make sure that a context of ``name`` may open here.

        Raises:
            DeltaInUseError: If a context of another delta is open in code that does not surround the caller, or if the
                caller may be suspended while that code continues.
        """
        if all(visit.name == name for visit in self.visits):
            return
        missing, frame = {visit.frame for visit in self.visits}, inspect.currentframe()
        while frame is not None:
            missing.discard(mark(frame))
            if not missing:
                return
            frame = None if frame.f_code.co_flags & SUSPENDED else frame.f_back
        raise DeltaInUseError(
            f'a context of {self.visits[-1].name!r} is open in this thread, and one of {name!r} would change the '
            'numbers under it; leave it first, open the second in the same function or in a plain '
            'function that it calls, or give each coroutine its own network and bank'
        )

    def _alone(self, work: Callable[[], T]) -> T:
        if self._is_changing():
            raise DeltaInUseError('this thread is already changing the applied delta; change it again afterwards')
        try:
            self._changing = mark(sys._getframe())
            return work()
        finally:
            self._changing = None

    def _is_changing(self) -> bool:
        """True if :meth:`_alone` runs further up the stack; a mark left by an interrupt matches no running frame."""
        frame = sys._getframe(2) if self._changing else None
        while frame is not None and mark(frame) != self._changing:
            frame = frame.f_back
        return frame is not None

    def _sweep(self) -> None:
        for visit in [visit for visit in reversed(self.visits) if visit.abandoned]:
            self.leave(visit)

    def _check_alive(self) -> None:
        thread = self.visits[-1].thread
        if not thread.is_alive():
            raise DeltaInUseError(
                f'thread {thread.name!r} ended within a context of {self.visits[-1].name!r}; leave that context, or '
                'build the network and its bank anew'
            )


def mark(frame: FrameType) -> Mark:
    """A mark that identifies ``frame`` while it lives, without keeping its variables alive."""
    return id(frame), frame.f_code


def caller() -> Mark:
    """The mark of the frame that called the caller, without frames of :mod:`contextlib`."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename == contextlib.__file__ and frame.f_back is not None:
        frame = frame.f_back
    return mark(frame)


_GATES: weakref.WeakKeyDictionary[nn.Module, Gate] = weakref.WeakKeyDictionary()


def gate_of(backbone: nn.Module) -> Gate:
    """The gate of ``backbone``, the same for all banks and applied deltas of it."""
    return _GATES.setdefault(backbone, Gate())
