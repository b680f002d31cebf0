"""Several deltas at hand for one network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from torch import nn

from mmgps.tuning import eject

from .apply import alike, fitted
from .base import Base
from .delta import Delta
from .files import load_delta
from .fit import verify
from .grow import grow
from .patch import Patch


class DeltaBank:
    """Deltas of one base by name, of which one or none is on the network.

    The digests of the base are read once. A switch then moves no more numbers than the two deltas hold::

        bank = DeltaBank(model)
        bank.add('polyp', 'polyp.safetensors')
        bank.switch('polyp')

    Args:
        model: With the numbers of the base, and no delta on it.
        target: Path of the backbone within it.
    """

    def __init__(self, model: nn.Module, target: str = 'backbone') -> None:
        self.model, self.target = model, target
        self._base = Base.of(model.get_submodule(target))
        self._deltas: dict[str, Delta] = {}
        self._patches: dict[str, Patch] = {}
        self._active: str | None = None
        self._grew = False

    @property
    def names(self) -> list[str]:
        """Of the deltas, in the order in which they came."""
        return list(self._deltas)

    @property
    def active(self) -> str | None:
        """Name of the delta that is on the network; None for the base."""
        return self._active

    def add(self, name: str, delta: Delta | str | os.PathLike[str]) -> Delta:
        """Have ``delta``, or the one in a file, at hand as ``name``.

        Raises:
            DeltaMismatchError: If it belongs to another base or architecture.
            DeltaFileError: If the file is damaged.
            ValueError: If the name is taken.
        """
        if name in self._deltas:
            raise ValueError(f'there is a delta {name!r} already; discard it first or choose another name')
        if not isinstance(delta, Delta):
            delta = load_delta(delta)
        with self.using(None):
            verify(self.model, delta, self._base)
            self._patches[name], self._grew = fitted(self.model, delta)
            self._shrink()
        self._deltas[name] = delta
        return delta

    def discard(self, name: str) -> None:
        """Forget the delta ``name``; takes it off if it is on."""
        self[name]
        if self._active == name:
            self.switch(None)
        del self._deltas[name]
        del self._patches[name]

    def __getitem__(self, name: str) -> Delta:
        """The delta ``name``.

        Raises:
            KeyError: Names those that there are.
        """
        if name not in self._deltas:
            near = get_close_matches(name, self._deltas, 3, 0.0)
            raise KeyError(f'no delta {name!r} at hand; nearest: {", ".join(near) or "there is none"}')
        return self._deltas[name]

    def __contains__(self, name: object) -> bool:
        return name in self._deltas

    def switch(self, name: str | None) -> None:
        """Put the delta ``name`` on the network instead of the one that is on; None leaves the base.

        Raises:
            KeyError: If there is no such delta; nothing is changed then.
        """
        if name == self._active:
            return
        new = None if name is None else self[name]
        self._take_off(new)
        if name is not None and new is not None:
            self._grew |= grow(self.model.get_submodule(self.target), new.selection, new.injected())
            self._patches[name].put_on()
            self._active = name

    def _take_off(self, following: Delta | None) -> None:
        """Restore the base, but for modules beside it that ``following`` has too."""
        if self._active is None:
            return
        self._patches[self._active].take_off()
        stay = following is not None and alike(self[self._active], following)
        self._active = None
        if not stay:
            self._shrink()

    def _shrink(self) -> None:
        """Take out what deltas put beside the base."""
        if self._grew:
            eject(self.model.get_submodule(self.target))
            self._grew = False

    @contextmanager
    def using(self, name: str | None) -> Iterator[nn.Module]:
        """The network with the delta ``name`` within the context, and as it was before afterwards."""
        before = self._active
        self.switch(name)
        try:
            yield self.model
        finally:
            self.switch(before)
