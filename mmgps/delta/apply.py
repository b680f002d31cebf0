"""Apply a delta to a network and remove it again, or merge it into the base."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmgps.rewiring import Structure, roll_back
from mmgps.selection import SelectionMismatchError
from mmgps.sparse import WeightIndex
from mmgps.tuning import InjectionError, TuningMethod, merge_operations, unload

from .base import DeltaMismatchError, below, tensors_of
from .delta import Delta, backbone_of, check_tensors, verify
from .gate import DeltaInUseError, Gate, gate_of
from .injecting import check_injection, inject_missing


class AppliedDelta:
    """Applies a delta to a network, from construction to :meth:`remove`.

    The numbers are written into the tensors of ``model``. Missing modules of a method such as LoRA are injected.
    :meth:`remove`, or leaving the context, restores the base bit for bit::

        with AppliedDelta(model, delta):
            model(picture)

    Args:
        model: With the numbers of the base.
        delta: The delta to apply.
        method: The method of the delta, if it injects modules and is not part of mmgps.

    Raises:
        DeltaMismatchError: If the delta belongs to another base or architecture.
        DeltaInUseError: If a bank's delta is applied to the network, or a context of a bank is open.
            These or any other exception leave the network as it was, bit for bit.
    """

    def __init__(self, model: nn.Module, delta: Delta, method: TuningMethod | None = None) -> None:
        self._writer: DeltaWriter | None = None
        self._entered = False
        self._backbone = backbone_of(model, delta)
        self._undo: Undo = []
        try:
            self._gate.run(partial(self._put_on, model, delta, method))
        except BaseException:
            if self._writer is not None:  # it was raised when everything was done
                self.remove()
            raise

    def _put_on(self, model: nn.Module, delta: Delta, method: TuningMethod | None) -> None:
        if self._gate.visits:
            raise DeltaInUseError(f'a context of a bank is open with {self._gate.visits[-1].name!r}; leave it first')
        verify(model, delta)
        try:
            self._claim()
            self._undo += [partial(self._gate.release, self), Structure(self._backbone).restore]
            writer, self._injected = writer_for(model, delta, method)
            writer.write(self._undo)
            self._writer = writer
            self._undo.clear()
        except BaseException:
            roll_back(self._undo)
            raise

    def remove(self) -> None:
        """Restore the base; a second call does nothing. An exception within leaves the delta applied."""
        self._gate.run(self._take_off)

    def _take_off(self) -> None:
        roll_back(self._undo)  # finish a roll-back that an exception stopped
        writer = self._writer
        if writer is None:
            return
        try:
            writer.restore(self._undo)
            if self._injected:
                self._undo.append(Structure(self._backbone).restore)
                unload(self._backbone)
            self._undo += [self._claim, partial(setattr, self, '_writer', writer)]
            self._gate.release(self)
            self._writer = None
            self._undo.clear()
        except BaseException:
            roll_back(self._undo)
            raise

    def _claim(self) -> None:
        self._gate.claim(self, 'a delta')

    @property
    def _gate(self) -> Gate:
        return gate_of(self._backbone)

    def __enter__(self) -> AppliedDelta:
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.remove()
        except BaseException:
            self.remove()  # restore the base before the exception is raised
            raise

    def __del__(self) -> None:
        if vars(self).get('_entered') and self._writer is not None:
            self.remove()


def writer_for(model: nn.Module, delta: Delta, method: TuningMethod | None = None) -> tuple[DeltaWriter, bool]:
    """A writer of ``delta`` for ``model``, after injecting missing modules; and whether any were missing.

    Raises:
        DeltaMismatchError: If the delta does not fit; nothing is changed then.
    """
    backbone = backbone_of(model, delta)
    if method is None:
        wanted = {name: delta.tensors[delta.prefix + name] for name in delta.injected()}
        check_injection(backbone, delta.selection, wanted)
    injected = inject_missing(backbone, delta.selection, delta.injected(), method)
    try:
        check_tensors(delta.tensors, tensors_of(model))
        return DeltaWriter(model, delta), injected
    except BaseException as error:
        if injected:
            unload(backbone)
        if isinstance(error, SelectionMismatchError):
            raise DeltaMismatchError(f'the delta does not fit: {error}') from error
        raise


def alike(some: Delta, other: Delta) -> bool:
    """Return True if both have the same injected modules, so that one can replace the other in place."""
    if some.injected() != other.injected():
        return False
    mine, its = some.selection, other.selection
    return not some.injected() or (mine.method, dict(mine.settings)) == (its.method, dict(its.settings))


Undo = list[Callable[[], Any]]
"""Steps that undo a change of a network, for :func:`mmgps.rewiring.roll_back`."""


class Whole:
    """All numbers of one tensor, to read and write in place like those of a :class:`WeightIndex`."""

    def __init__(self, dense: Tensor) -> None:
        self._dense = dense

    def take(self) -> Tensor:
        return self._dense.detach().clone()

    def put(self, values: Tensor) -> None:
        # not under ``no_grad``: an interrupt at its end would leave gradients off
        self._dense.detach().copy_(values)


NumberSlot = WeightIndex | Whole


class DeltaWriter:
    """Writes the numbers of ``delta`` into ``model``, and restores the previous ones.

    The previous numbers are kept and written back unchanged; nothing is computed. It also works after the network moved
    to another device.

    Args:
        model: The network.
        delta: A delta that fits it, see :func:`mmgps.delta.verify`.
    """

    def __init__(self, model: nn.Module, delta: Delta) -> None:
        self._model, self._delta = model, delta
        self._layouts = {
            below(delta.target, parameter.name): (parameter.neurons, item)
            for parameter, item in delta.selection.resolve(backbone_of(model, delta))
        }
        self._new = {**{below(delta.target, n): v for n, v in delta.values.items()}, **delta.tensors}
        self._slots: dict[str, tuple[Tensor, torch.device, NumberSlot]] = {}
        self._kept: dict[str, Tensor] = {}

    def write(self, undo: Undo) -> None:
        """Write the numbers of the delta.

        Args:
            undo: Receives, before each write, the step that undoes it.

        Raises:
            DeltaMismatchError: If the network was converted to another dtype since; nothing is changed then.
        """
        found = list(self._found())
        for name, dense, _ in found:
            if dense.dtype != self._new[name].dtype:
                raise DeltaMismatchError(
                    f'{name} is {dense.dtype}, the delta holds {self._new[name].dtype}; apply the delta first and '
                    'convert the network afterwards'
                )
        self._write([(slot, self._new[name].to(dense.device)) for name, dense, slot in found], undo, found)

    def restore(self, undo: Undo) -> None:
        """Write the previous numbers back; ``undo`` as for :meth:`write`."""
        found = list(self._found())
        kept = [(slot, self._kept[name].to(dense.device, dense.dtype)) for name, dense, slot in found]
        self._write(kept, undo)

    def _write(
        self,
        numbers: list[tuple[NumberSlot, Tensor]],
        undo: Undo,
        keep: Sequence[tuple[str, Tensor, NumberSlot]] = (),
    ) -> None:
        """Write ``numbers``; all memory is allocated before the first write."""
        before = [slot.take() for slot, _ in numbers]
        undo.append(partial(setattr, self, '_kept', self._kept))
        self._kept = {name: value for (name, _, _), value in zip(keep, before, strict=False)}
        for (slot, new), old in zip(numbers, before, strict=True):
            undo.append(partial(slot.put, old))
            slot.put(new)

    def _found(self) -> Iterator[tuple[str, Tensor, NumberSlot]]:
        there = tensors_of(self._model)
        for name in self._new:
            dense, known = there[name], self._slots.get(name)
            if known is None or known[0] is not dense or known[1] != dense.device:
                known = self._slots[name] = (dense, dense.device, self._slot(name, dense))
            yield name, dense, known[2]

    def _slot(self, name: str, dense: Tensor) -> NumberSlot:
        return WeightIndex(dense, *self._layouts[name]) if name in self._layouts else Whole(dense)


class DeltaMergeError(ValueError):
    """A delta cannot be merged into the base architecture."""


def merge(model: nn.Module, delta: Delta, method: TuningMethod | None = None) -> dict[str, Tensor]:
    """The state dict of the trained network, in the names and shapes of the base architecture.

    If the delta only changes numbers of the base, the result equals the trained network bit for bit. LoRA and SSF are
    folded into the weights, which rounds.

    Args:
        model: With the numbers of the base; it is copied and not changed.
        delta: The delta to merge.
        method: The method of the delta, if it injects modules and is not part of mmgps.

    Raises:
        DeltaMergeError: If the base architecture cannot compute the method, as with adapters and prompts.
        DeltaMismatchError: If the delta does not fit ``model``.
    """
    merged = copy.deepcopy(model)
    AppliedDelta(merged, delta, method)
    try:
        merge_operations(backbone_of(merged, delta))
    except InjectionError as error:
        raise DeltaMergeError(
            f'a delta of {delta.selection.method} cannot be merged: {error}; ship base and delta, and apply it where '
            'mmgps is installed'
        ) from error
    return {name: value.detach().clone() for name, value in merged.state_dict().items()}
