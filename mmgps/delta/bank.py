"""A bank of deltas for one network, to switch between them."""

from __future__ import annotations

import os
import threading
from contextlib import ContextDecorator
from functools import partial

from torch import nn

from mmgps.rewiring import Structure, roll_back
from mmgps.tuning import unload
from mmgps.utils.text import nearest

from .apply import DeltaWriter, Undo, alike, writer_for
from .base import BaseFingerprint
from .delta import Delta, verify
from .files import load_delta
from .gate import DeltaInUseError, Gate, Visit, caller, gate_of
from .injecting import inject_missing


class DeltaBank:
    """Deltas of one base by name, of which at most one is applied.

    The digests of the base are read once. A switch then writes only the numbers of the two deltas::

        bank = DeltaBank(model)
        bank.add('polyp', 'polyp.safetensors')
        bank.switch('polyp')

    Threads that share a bank compute within :meth:`using`, one at a time.

    Args:
        model: With the numbers of the base, and no delta applied.
        target: Path of the backbone in it.
    """

    def __init__(self, model: nn.Module, target: str = 'backbone') -> None:
        self.model, self.target = model, target
        self._base = BaseFingerprint.of(model.get_submodule(target))
        self._deltas: dict[str, Delta] = {}
        self._writers: dict[str, DeltaWriter] = {}
        self._active: str | None = None
        self._injected = False
        self._undo: Undo = []

    @property
    def names(self) -> list[str]:
        """Names of the deltas, in the order of addition."""
        return list(self._deltas)

    @property
    def active(self) -> str | None:
        """Name of the applied delta; None for the base."""
        return self._active

    def add(self, name: str, delta: Delta | str | os.PathLike[str]) -> Delta:
        """Add ``delta``, or the delta in a file, as ``name``.

        Raises:
            DeltaMismatchError: If it belongs to another base or architecture.
            DeltaFileError: If the file is damaged.
            ValueError: If the name is taken.
        """
        self._check_free(name)
        read = delta if isinstance(delta, Delta) else load_delta(delta)
        self._gate.run(partial(self._add, name, read))
        return read

    def _check_free(self, name: str) -> None:
        if name in self._deltas:
            raise ValueError(f'the bank already has a delta {name!r}; discard it first or choose another name')

    def _add(self, name: str, delta: Delta) -> None:
        self._check_free(name)
        self._gate.check_owner(self)
        before = self._active
        try:
            self._put(None)
            verify(self.model, delta, self._base)
            self._undo.append(Structure(self._backbone).restore)
            self._writers[name] = writer_for(self.model, delta)[0]
            roll_back(self._undo)
            self._put(before)
            self._deltas[name] = delta
        except BaseException:
            self._put(before)
            self._deltas.pop(name, None)
            self._writers.pop(name, None)
            raise

    def discard(self, name: str) -> None:
        """Remove the delta ``name`` from the bank, and from the network if it is applied.

        Raises:
            KeyError: If there is no such delta.
            DeltaInUseError: If a context computes with it.
        """
        self[name]
        if self._active == name:
            self.switch(None)
        self._deltas.pop(name, None)
        self._writers.pop(name, None)

    def __getitem__(self, name: str) -> Delta:
        """The delta ``name``.

        Raises:
            KeyError: If there is no such delta; names the nearest ones.
        """
        if name not in self._deltas:
            raise KeyError(f'the bank has no delta {name!r}; nearest: {nearest(name, self._deltas) or "there is none"}')
        return self._deltas[name]

    def __contains__(self, name: object) -> bool:
        return name in self._deltas

    def _enter(self, visit: Visit) -> None:
        self._gate.check_nested(visit.name)
        visit.before = self._active
        self._gate.visits.append(visit)
        self._put(visit.name)

    def switch(self, name: str | None) -> None:
        """Apply the delta ``name`` in place of the current one; None restores the base.

        Waits while another thread computes in a context of :meth:`using`. An exception within leaves the network as it
        was, bit for bit.

        Raises:
            KeyError: If there is no such delta; nothing is changed then.
            DeltaInUseError: Within a context of another delta, or if another bank's delta is applied to the network.
        """
        self._gate.run(partial(self._switch, name))

    def _switch(self, name: str | None) -> None:
        if self._gate.visits and name != self._active:
            raise DeltaInUseError(
                f'switch to {name!r} within a context of {self._active!r}; open using({name!r}) instead, or leave the '
                'context first'
            )
        self._put(name)

    def using(self, name: str | None) -> Using:
        """A context in which the delta ``name`` is applied; the previous state returns afterwards.

        Other threads that ask for a delta wait until the context ends. Contexts may be nested, also with another delta,
        within the limits of :class:`Gate`.

        Raises:
            KeyError: When it is entered, if there is no such delta.
            DeltaInUseError: When it is entered while another coroutine or generator computes with another delta.
        """
        return Using(self, name)

    def _put(self, name: str | None) -> None:
        """Switch to ``name`` without waiting."""
        roll_back(self._undo)  # finish a roll-back that an exception stopped
        if name == self._active:
            return
        old, new = self._delta(self._active), self._delta(name)
        try:
            self._gate.check_owner(self)
            self._undo.append(partial(self._note, self._active))
            if self._active is not None:
                self._writers[self._active].restore(self._undo)
            if any(delta is not None and delta.injected() for delta in (old, new)):
                self._replace_modules(old, new)
            if name is not None:
                self._writers[name].write(self._undo)
            self._note(name)
            self._undo.clear()
        except BaseException:
            roll_back(self._undo)
            raise

    def _delta(self, name: str | None) -> Delta | None:
        return None if name is None else self[name]

    def _replace_modules(self, old: Delta | None, new: Delta | None) -> None:
        """Unload the modules of ``old`` and inject those of ``new``; common ones stay."""
        self._undo += [partial(setattr, self, '_injected', self._injected), Structure(self._backbone).restore]
        if self._injected and not (old is not None and new is not None and alike(old, new)):
            unload(self._backbone)
            self._injected = False
        if new is not None:
            self._injected |= inject_missing(self._backbone, new.selection, new.injected())

    def switched(self, delta: Delta | None) -> None:
        """Called within every change when ``delta`` is applied, possibly more than once; for subclasses."""

    def _note(self, name: str | None) -> None:
        self.switched(self._delta(name))
        if name is None:
            self._gate.release(self)
        else:
            self._gate.claim(self, f'the delta {name!r} of a bank')
        self._active = name

    @property
    def _backbone(self) -> nn.Module:
        return self.model.get_submodule(self.target)

    @property
    def _gate(self) -> Gate:
        return gate_of(self._backbone)

    def __copy__(self) -> DeltaBank:
        raise TypeError('a shallow copy of a bank would share its network; use copy.deepcopy')

    def __getstate__(self) -> dict[str, object]:
        """State for a copy with its own network and the same delta applied.

        Raises:
            DeltaInUseError: While another thread computes with a delta.
        """
        visits = self._gate.visits
        if visits and visits[-1].thread is not threading.current_thread():
            raise DeltaInUseError(
                f'thread {visits[-1].thread.name!r} computes with {visits[-1].name!r}; copy the bank afterwards'
            )
        roll_back(self._undo)
        return vars(self)

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._note(self._active)


class Using(ContextDecorator):
    """A context of :meth:`DeltaBank.using`.

    Args:
        bank: The bank.
        name: Name of the delta, None for the base.
    """

    def __init__(self, bank: DeltaBank, name: str | None) -> None:
        self._bank, self._name = bank, name
        self._visit: Visit | None = None

    def __enter__(self) -> nn.Module:
        if self._visit is not None:
            raise RuntimeError('this context is open already; call using() once for each')
        bank = self._bank
        thread = threading.current_thread()
        visit = self._visit = Visit(self._name, None, caller(), thread, bank._put)
        try:
            bank._gate.run(partial(bank._enter, visit))
        except BaseException:
            self._leave(visit)
            raise
        return bank.model

    def __exit__(self, *_: object) -> None:
        if self._visit is None:
            return
        visit = self._visit
        try:
            self._leave(visit)
        except BaseException:
            self._leave(visit)  # restore the network before the exception is raised
            raise

    def _leave(self, visit: Visit) -> None:
        self._bank._gate.leave(visit)
        self._visit = None

    def _recreate_cm(self) -> Using:
        """A context for each call of a function that it decorates."""
        return Using(self._bank, self._name)

    def __del__(self) -> None:
        visit = vars(self).get('_visit')
        if visit is not None:
            self._bank._gate.abandon(visit)
