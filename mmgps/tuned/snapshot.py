"""Numbers of a model, to be put back later."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from mmgps.delta import Delta, tensors_of
from mmgps.selection import Selection
from mmgps.sparse import WeightIndex, registered_in


class Snapshot:
    """Copies of all numbers of a model that training a selection may move, buffers included.

    Args:
        model: The model.
        selection: What is trained of its backbone.
        target: Path of the backbone within it.
    """

    def __init__(self, model: nn.Module, selection: Selection, target: str) -> None:
        backbone = model.get_submodule(target)
        self._chosen = [WeightIndex(entry.value, entry.neurons, item) for entry, item in selection.resolve(backbone)]
        self._numbers = [spot.take() for spot in self._chosen]
        self._whole = [(value, value.detach().clone()) for value in _moving(model, backbone, selection)]

    def restore(self) -> None:
        """Put the numbers back in place. May be called again."""
        for spot, numbers in zip(self._chosen, self._numbers, strict=True):
            spot.put(numbers)
        for value, numbers in self._whole:
            value.detach().copy_(numbers)


def write_delta(model: nn.Module, delta: Delta) -> None:
    """Put the numbers of ``delta``, which fits, into ``model``."""
    for entry, item in delta.selection.resolve(model.get_submodule(delta.target)):
        numbers = delta.values[entry.name]
        WeightIndex(entry.value, entry.neurons, item).put(numbers.to(entry.value.device))
    found = tensors_of(model)
    for name, value in delta.tensors.items():
        found[name].detach().copy_(value)


def _moving(model: nn.Module, backbone: nn.Module, selection: Selection) -> Iterator[Tensor]:
    """Parameters that may move as a whole, and buffers."""
    still = {id(value) for name, value in backbone.named_parameters() if name not in selection.whole}
    still |= {id(value) for value in registered_in(model)}
    yield from (value for value in model.parameters() if id(value) not in still)
    yield from model.buffers()
