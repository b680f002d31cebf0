"""Put in place what a run had beside the base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn

from mmgps.selection import Selection, SelectionMismatchError
from mmgps.tuning import InjectionError, TuningMethod, eject, rebuild_method

from .base import DeltaMismatchError, listed
from .tensors import injected_names, tensors_of


def grow(backbone: nn.Module, selection: Selection, wanted: set[str], method: TuningMethod | None = None) -> bool:
    """Put in place what a run had beside the base, where it is not there.

    Methods leave alone what the user froze, and a network that only computes may be frozen as a whole. So they are
    asked with the flags that are there and, if that does not give what is wanted, as if nothing were frozen.

    Args:
        backbone: The part that is tuned.
        selection: What the run trained.
        wanted: Names, in ``backbone``, of all tensors beside the base.
        method: The method of the run, if it is none of mmgps.

    Returns:
        Whether anything was missing.

    Raises:
        DeltaMismatchError: If the method does not put in place what is wanted; nothing is changed then.
    """
    if not wanted - tensors_of(backbone).keys():
        return False
    if injected_names(backbone):
        raise DeltaMismatchError(
            f'the {type(backbone).__name__} has modules of another method in place; build it without one'
        )
    chosen = method or rebuild_method(selection)
    if _attempt(backbone, selection, wanted, chosen):
        return True
    with thawed(backbone):
        if _attempt(backbone, selection, wanted, chosen):
            return True
    raise DeltaMismatchError(
        f'{chosen.name} has no place in this {type(backbone).__name__} for {listed(sorted(wanted))}'
    )


def _attempt(backbone: nn.Module, selection: Selection, wanted: set[str], method: TuningMethod) -> bool:
    with suppress(InjectionError, SelectionMismatchError):
        method.complete(backbone, selection)
    if injected_names(backbone) == wanted:
        return True
    eject(backbone)
    return False


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
