"""Put in place what a delta has beside the base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn

from mmgps.selection import SelectionMismatchError
from mmgps.tuning import InjectionError, TuningMethod, eject, rebuild_method

from .base import DeltaMismatchError, listed
from .delta import Delta
from .fit import backbone_of
from .tensors import injected_names, tensors_of


def grow(model: nn.Module, delta: Delta, method: TuningMethod | None = None) -> bool:
    """Put in place what ``delta`` has beside the base, where it is not there.

    Methods leave alone what the user froze, and a network that only computes may be frozen as a whole. So they are
    asked with the flags that are there and, if that does not give what the delta has, as if nothing were frozen.

    Args:
        model: The network.
        delta: Its delta.
        method: The method of the delta, if it is none of mmgps.

    Returns:
        Whether anything was missing.

    Raises:
        DeltaMismatchError: If the method does not put in place what the delta has; nothing is changed then.
    """
    wanted = delta.injected()
    if not wanted - tensors_of(model).keys():
        return False
    backbone = backbone_of(model, delta)
    if injected_names(backbone):
        raise DeltaMismatchError(
            f'the {type(backbone).__name__} has modules of another method in place; build it without one'
        )
    chosen = method or rebuild_method(delta.selection)
    if not (_attempt(backbone, delta, chosen) or _attempt_thawed(backbone, delta, chosen)):
        raise DeltaMismatchError(
            f'{chosen.name} has no place in this {type(backbone).__name__} for {listed(sorted(wanted))}'
        )
    return True


def _attempt(backbone: nn.Module, delta: Delta, method: TuningMethod) -> bool:
    with suppress(InjectionError, SelectionMismatchError):
        method.complete(backbone, delta.selection)
    if {delta.prefix + name for name in injected_names(backbone)} == delta.injected():
        return True
    eject(backbone)
    return False


def _attempt_thawed(backbone: nn.Module, delta: Delta, method: TuningMethod) -> bool:
    with thawed(backbone):
        return _attempt(backbone, delta, method)


@contextmanager
def thawed(backbone: nn.Module) -> Iterator[None]:
    """Nothing of ``backbone`` is frozen within the context."""
    flags = [(value, value.requires_grad) for value in backbone.parameters()]
    backbone.requires_grad_(True)
    try:
        yield
    finally:
        for value, flag in flags:
            value.requires_grad_(flag)
