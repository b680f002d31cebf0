"""Numbers that take the place of others in one network, and the others, which are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmgps.sparse import Places

from .base import DeltaMismatchError
from .delta import Delta
from .fit import backbone_of
from .tensors import below, tensors_of

Undo = list[Callable[[], Any]]
"""Steps that bring a network back to where a change began, for :func:`mmgps.tuning.roll_back`."""


class Spot(Protocol):
    """Numbers of one tensor that can be read and written in place."""

    def take(self) -> Tensor: ...

    def put(self, values: Tensor) -> None: ...


class Whole:
    """All numbers of one tensor."""

    def __init__(self, dense: Tensor) -> None:
        self._dense = dense

    def take(self) -> Tensor:
        return self._dense.detach().clone()

    def put(self, values: Tensor) -> None:
        # without ``no_grad``: an interrupt as it ends would leave gradients off
        self._dense.detach().copy_(values)


class Patch:
    """The numbers of ``delta`` in place of those of ``model``, from :meth:`put_on` to :meth:`take_off`.

    What was there is kept, and written back as it was: nothing is computed. Takes the weights where they lie, also
    after the network went to another device.

    Args:
        model: The network.
        delta: Fits it, see :func:`mmgps.delta.verify`.
    """

    def __init__(self, model: nn.Module, delta: Delta) -> None:
        self._model, self._delta = model, delta
        self._layouts = {
            below(delta.target, parameter.name): (parameter.neurons, item)
            for parameter, item in delta.selection.resolve(backbone_of(model, delta))
        }
        self._new = {**{below(delta.target, n): v for n, v in delta.values.items()}, **delta.tensors}
        self._spots: dict[str, tuple[Tensor, torch.device, Spot]] = {}
        self._kept: dict[str, Tensor] = {}

    def put_on(self, undo: Undo) -> None:
        """Write the numbers of the delta.

        Args:
            undo: Gets, before each write, the step that takes it back.

        Raises:
            DeltaMismatchError: If the network went to another type of numbers since; nothing is changed then.
        """
        found = list(self._found())
        for name, dense, _ in found:
            if dense.dtype != self._new[name].dtype:
                raise DeltaMismatchError(
                    f'{name} is {dense.dtype}, the delta holds {self._new[name].dtype}; apply it first and convert the '
                    'network afterwards'
                )
        self._write([(spot, self._new[name].to(dense.device)) for name, dense, spot in found], undo, found)

    def take_off(self, undo: Undo) -> None:
        """Write the numbers back that were there before; ``undo`` as for :meth:`put_on`."""
        found = list(self._found())
        kept = [(spot, self._kept[name].to(dense.device, dense.dtype)) for name, dense, spot in found]
        self._write(kept, undo)

    def _write(
        self,
        numbers: list[tuple[Spot, Tensor]],
        undo: Undo,
        keep: Sequence[tuple[str, Tensor, Spot]] = (),
    ) -> None:
        """Write ``numbers``; all memory is taken before the first of them."""
        before = [spot.take() for spot, _ in numbers]
        undo.append(partial(setattr, self, '_kept', self._kept))
        self._kept = {name: value for (name, _, _), value in zip(keep, before, strict=False)}
        for (spot, new), old in zip(numbers, before, strict=True):
            undo.append(partial(spot.put, old))
            spot.put(new)

    def _found(self) -> Iterator[tuple[str, Tensor, Spot]]:
        there = tensors_of(self._model)
        for name in self._new:
            dense, known = there[name], self._spots.get(name)
            if known is None or known[0] is not dense or known[1] != dense.device:
                known = self._spots[name] = (dense, dense.device, self._spot(name, dense))
            yield name, dense, known[2]

    def _spot(self, name: str, dense: Tensor) -> Spot:
        return Places(dense, *self._layouts[name]) if name in self._layouts else Whole(dense)
