"""A forward of one module only, in place of that of its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .types import CONVOLUTIONS, TRANSPOSED

# Where a forward is defined that computes torch's operation on the layer's input as it comes.
NATIVE_FORWARDS = {'torch.nn.modules.linear', 'torch.nn.modules.conv', 'mmcv.cnn.bricks.wrappers'}


class OwnForward:
    """Stands for the forward of ``owner`` from construction to :meth:`remove`.

    The class of the module stays as it is. A copied or pickled module gets its native forward back.

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
    """Whether the forward that ``owner`` runs is defined in one of ``modules`` and not of its own."""
    parts = [getattr(type(owner), name) for name in ('forward', '_conv_forward') if hasattr(type(owner), name)]
    own = vars(owner).get('forward')
    copied = own is None or getattr(own, '__func__', None) is type(owner).forward
    return copied and all(part.__module__ in modules for part in parts)


def computes_natively(owner: nn.Module) -> bool:
    """Whether ``owner`` is a linear layer or convolution that runs torch's operation on its weight and its input.

    One that computes with a standardised weight, or pads its input itself, does not: only the fallback is right there.
    """
    return isinstance(owner, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)) and runs_forward_of(owner, NATIVE_FORWARDS)


class Call:
    """A hook that does something and leaves what it is given alone. A copied module gets none of it."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def __call__(self, *_: Any) -> None:
        self._action()

    def __reduce__(self) -> tuple[Any, ...]:
        return (no_hook, ())


def no_hook() -> Any:
    """The hook that a copied module has where its original had one."""
    return _ignore


def _ignore(*_: Any) -> None:
    return None
