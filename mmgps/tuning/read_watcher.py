"""Watch which operations read the trained tensors, and which results are detached on the way to the loss."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .trained import Trained

DETACHING = {'detach', 'detach_', 'data'}


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
        inputs, name = [*_tensors((*args, *(kwargs or {}).values()))], _name_of(func)
        cuts = name in DETACHING or not torch.is_grad_enabled()
        cut = [value.grad_fn or value for value in inputs if value.requires_grad] if cuts else []  # detach_ drops it
        output = func(*args, **(kwargs or {}))
        outputs = [*_tensors((output,))]
        if outputs or name == 'requires_grad':  # which the layers of compact training ask, and autograd goes on from
            self._note_reads(inputs, bool(outputs) and name not in DETACHING, bool(outputs))
        if outputs and not name.startswith('new_') and not name.endswith('_like'):
            self._follow(inputs, outputs, cut)
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
                entry.read_directly |= recording and gives and computes
            for entry in self._layers.get(id(value), ()) if computes else ():
                entry.layer_recorded |= recording
                entry.recorded |= recording and entry.chosen  # a read of the weight itself sends its gradient back
                entry.unrecorded |= not recording

    def _follow(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cut: Sequence[Any]) -> None:
        """Note that ``outputs`` depend on detached tensors, and where those meet recorded operations.

        Args:
            inputs: Inputs of the operation.
            outputs: Outputs of the operation.
            cut: Nodes and leaves from which the operation cuts its outputs off.
        """
        before = [found for value in inputs if (found := self._detached.get(id(value))) and found.tensor() is value]
        if not before and not cut:
            return
        inherited = [node for found in before for node in found.inherited]
        for found in before:  # what needs a gradient by now came out of a Function that passes its own gradients on
            value = found.tensor()
            inherited += [] if value is None or value.requires_grad else found.direct
        inherited = list(dict.fromkeys(inherited))
        if any(value.requires_grad for value in outputs):
            self._cuts += inherited
        for value in outputs:
            if value.is_floating_point() and not value.requires_grad:
                self._detached[id(value)] = Detached(weakref.ref(value), cut, inherited)

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
            if (entry := self._values.get(id(leaf))) is not None:
                entry.detached = True
            for entry in self._layers.get(id(leaf), ()):  # which compact training detaches too, but computes nothing
                entry.detached |= entry.layer_recorded
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
