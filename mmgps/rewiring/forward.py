"""Replace the forward of a single module, and add hooks that copies do not inherit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .types import CONVOLUTIONS, TRANSPOSED

# Python modules whose layers apply torch's operation to their unchanged input.
NATIVE_FORWARDS = {'torch.nn.modules.linear', 'torch.nn.modules.conv', 'mmcv.cnn.bricks.wrappers'}


class OwnForward:
    """Replaces the forward of ``owner`` from construction to :meth:`remove`.

    The class of the module stays the same. Copies and pickles of the module have its native forward.
    """

    def __init__(self, owner: nn.Module) -> None:
        self._owner = owner
        vars(owner)['forward'] = self

    def remove(self) -> None:
        if vars(self._owner).get('forward') is self:  # mmcv's ConvModule may have replaced it
            del vars(self._owner)['forward']

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (self._owner, 'forward'))


def runs_forward_of(owner: nn.Module, modules: set[str]) -> bool:
    """True if ``owner`` runs the forward of its class, which one of the Python ``modules`` defines."""
    parts = [getattr(type(owner), name) for name in ('forward', '_conv_forward') if hasattr(type(owner), name)]
    own = vars(owner).get('forward')
    copied = own is None or getattr(own, '__func__', None) is type(owner).forward
    return copied and all(part.__module__ in modules for part in parts)


def computes_natively(owner: nn.Module) -> bool:
    """True if ``owner`` is a linear layer or convolution that applies torch's operation to its weight and its input.

    Layers that standardise their weight or pad their input do not.
    """
    return isinstance(owner, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)) and runs_forward_of(owner, NATIVE_FORWARDS)


class Call:
    """A hook that runs ``action`` and changes neither inputs nor output; copies of the module do not get it."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def __call__(self, *_: Any) -> None:
        self._action()

    def __reduce__(self) -> tuple[Any, ...]:
        return (no_hook, ())


def no_hook() -> Any:
    """A hook that does nothing, for copied modules."""
    return _ignore


def _ignore(*_: Any) -> None:
    return None
