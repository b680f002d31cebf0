"""Give one module a forward of its own, in place of its class's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .types import CONVOLUTIONS, TRANSPOSED

# Modules that define a forward which applies torch's operation to the unchanged input of the layer.
NATIVE_FORWARDS = {'torch.nn.modules.linear', 'torch.nn.modules.conv', 'mmcv.cnn.bricks.wrappers'}


class OwnForward:
    """Replaces the forward of ``owner`` from construction to :meth:`remove`.

    The class of the module is not changed. A copied or pickled module gets its native forward back.

    Args:
        owner: The module.
    """

    def __init__(self, owner: nn.Module) -> None:
        self._owner = owner
        vars(owner)['forward'] = self

    def remove(self) -> None:
        if vars(self._owner).get('forward') is self:  # mmcv's ConvModule puts another one in place and takes it away
            del vars(self._owner)['forward']

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (self._owner, 'forward'))


def runs_forward_of(owner: nn.Module, modules: set[str]) -> bool:
    """Whether ``owner`` runs the forward of its class, and that is defined in one of ``modules``."""
    parts = [getattr(type(owner), name) for name in ('forward', '_conv_forward') if hasattr(type(owner), name)]
    own = vars(owner).get('forward')
    copied = own is None or getattr(own, '__func__', None) is type(owner).forward
    return copied and all(part.__module__ in modules for part in parts)


def computes_natively(owner: nn.Module) -> bool:
    """Whether ``owner`` is a linear layer or convolution that runs torch's operation on its weight and its input.

    A layer that standardises its weight or pads its input does not; it needs the fallback.
    """
    return isinstance(owner, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)) and runs_forward_of(owner, NATIVE_FORWARDS)


class Call:
    """A hook that runs ``action`` and changes neither inputs nor output. A copied module does not get it."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def __call__(self, *_: Any) -> None:
        self._action()

    def __reduce__(self) -> tuple[Any, ...]:
        return (no_hook, ())


def no_hook() -> Any:
    """The hook that takes the place of another in a copied module: it does nothing."""
    return _ignore


def _ignore(*_: Any) -> None:
    return None
