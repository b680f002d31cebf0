"""Weights that are read by another module than their owner.

Some modules compute with ``F.linear(x, self.qkv.weight)`` and never call ``self.qkv`` (BEiT does, to compose a bias):
no hook of the layer sees that. So, until a layer has been called once, and for good if it never is, its weight is also
replaced by the stand-in of the fallback while the module around it computes. A module whose forward is not that of its
class counts as around all that is below: one made by ``torch.fx`` calls nothing in between. During the layer's own
forward the stand-in is taken away, so that nothing counts twice. The hooks that do it go between two steps, not within
a forward that may be compiled.

A layer that is both called and read from outside is not noticed after its first call.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from .fallback import Call, Shadow
from .weight import TrainedWeight

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Reader:
    """Watches one layer from the forward of the module around it."""

    def __init__(self, scope: nn.Module, owner: nn.Module, attribute: str, weight: TrainedWeight) -> None:
        self._shadow = Shadow(owner, attribute, weight)
        self._aside: Tensor | None = None
        self._live = self._called = False
        self._handles = [
            scope.register_forward_pre_hook(Call(self._enter)),
            scope.register_forward_hook(Call(self._leave), always_call=True),
            owner.register_forward_pre_hook(Call(self._begin), prepend=True),
            owner.register_forward_hook(Call(self._end), always_call=True),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def settle(self) -> bool:
        """Stop watching if the layer was called; say whether it was."""
        if self._called:
            self.remove()
        return self._called

    def _enter(self) -> None:
        self._live = not self._called and self._shadow.cast()

    def _leave(self) -> None:
        self._shadow.lift()
        self._live = False

    def _begin(self) -> None:
        self._aside = self._shadow.lift()
        self._called |= self._live

    def _end(self) -> None:
        if self._aside is not None:
            self._shadow.put(self._aside)
            self._aside = None


def watch_readers(backbone: nn.Module, layers: Iterable[tuple[nn.Module, str, TrainedWeight]]) -> list[Reader]:
    """Watch ``layers``, each an owner, its attribute and the weight."""
    scopes = _scopes(backbone, [backbone])
    return [Reader(scope, owner, name, weight) for owner, name, weight in layers for scope in scopes.get(id(owner), ())]


def _scopes(module: nn.Module, around: list[nn.Module]) -> dict[int, list[nn.Module]]:
    """Id of each module below ``module`` to the modules around it that may read its weights.

    These are the nearest one that is not a mere container, and all whose forward is not that of their class.
    """
    found: dict[int, list[nn.Module]] = {}
    for child in module.children():
        found[id(child)] = around
        mere = isinstance(child, CONTAINERS) and not _has_own_forward(child)
        found |= _scopes(child, around if mere else [*filter(_has_own_forward, around), child])
    return found


def _has_own_forward(module: nn.Module) -> bool:
    return 'forward' in vars(module)
