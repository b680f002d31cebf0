"""Inject the modules that a run added to the base."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from mmgps.rewiring import Structure
from mmgps.selection import Selection, SelectionMismatchError
from mmgps.tuning import InjectionError, TuningMethod, rebuild_method, unload
from mmgps.utils.text import listed

from .base import DeltaMismatchError, injected_names, tensors_of

MOST = 2**24
"""Numbers that a file without their shapes may inject into a base with fewer numbers."""


def inject_missing(
    backbone: nn.Module, selection: Selection, wanted: set[str], method: TuningMethod | None = None
) -> bool:
    """Inject the modules that a run added to the base, if they are missing.

    Methods skip layers that the user froze, and a network for inference may be frozen entirely. So the method first
    runs with the present flags. If the result differs from ``wanted``, it runs as if nothing were frozen, and then with
    those layers frozen that got surplus modules.

    Args:
        backbone: The tuned part of the model.
        selection: The selection of the run.
        wanted: Names, in ``backbone``, of all tensors of injected modules.
        method: The method of the run, if it is not part of mmgps.

    Returns:
        Whether anything was missing.

    Raises:
        DeltaMismatchError: If the method does not inject the tensors ``wanted``. This or any other exception changes
            nothing.
    """
    if not wanted - tensors_of(backbone).keys():
        return False
    if injected_names(backbone):
        raise DeltaMismatchError(
            f'the {type(backbone).__name__} has injected modules of another method; build it without one'
        )
    chosen = method or _rebuilt(selection)
    before = Structure(backbone)
    try:
        if _attempt(backbone, selection, wanted, chosen) == wanted:
            return True
        with thawed(backbone):
            found = _attempt(backbone, selection, wanted, chosen)
            while found != wanted and _freeze(backbone, found - wanted, wanted):
                found = _attempt(backbone, selection, wanted, chosen)
            if found == wanted:
                return True
        raise DeltaMismatchError(
            f'{chosen.name} has no place in this {type(backbone).__name__} for {listed(sorted(wanted))}'
        )
    except BaseException:
        before.restore()
        raise


def check_injection(backbone: nn.Module, selection: Selection, wanted: Mapping[str, Tensor | None]) -> None:
    """Make sure that :func:`inject_missing` would create tensors of the shapes of ``wanted``, without memory for them.

    The settings in a file may ask for any number of gigabytes.

    Args:
        backbone: The tuned part of the model; it is not changed.
        selection: The selection of the run.
        wanted: All tensors of injected modules, by their names in ``backbone``; None if a file does not give the shape.

    Raises:
        DeltaMismatchError: If the method would inject other tensors or shapes, or, for unknown shapes, more numbers
            than the base holds and more than 16 million.
    """
    if not wanted.keys() - tensors_of(backbone).keys():
        return
    twin = copy.deepcopy(backbone, {id(value): _without_memory(value) for value in tensors_of(backbone).values()})
    try:
        with torch.device('meta'):
            inject_missing(twin, selection, set(wanted))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        if isinstance(error, DeltaMismatchError | torch.OutOfMemoryError):
            raise
        raise DeltaMismatchError(f'{_shown(selection)} has no place: {error}') from error
    made = tensors_of(twin)
    wrong = [
        f'{name} {tuple(value.shape)}, {_shown(selection)} makes {tuple(made[name].shape)}'
        for name, value in wanted.items()
        if value is not None and value.shape != made[name].shape
    ]
    size = sum(made[name].numel() for name, value in wanted.items() if value is None)
    if size > max(MOST, sum(value.numel() for value in tensors_of(backbone).values())):
        raise DeltaMismatchError(f'{_shown(selection)} injects {size:,} numbers, more than the base has')
    if wrong:
        raise DeltaMismatchError(f'the delta holds tensors of another shape than its method says: {listed(wrong)}')


def _shown(selection: Selection) -> str:
    """Method and settings, for messages; a file may hold settings of any length."""
    return f'{selection.method} with {str(dict(selection.settings))[:200]}'


def _without_memory(value: Tensor) -> Tensor:
    alike = value.detach().to('meta')
    return nn.Parameter(alike, value.requires_grad) if isinstance(value, nn.Parameter) else alike


def _rebuilt(selection: Selection) -> TuningMethod:
    try:
        return rebuild_method(selection)
    except (TypeError, ValueError, OverflowError) as error:
        raise DeltaMismatchError(f'{_shown(selection)} cannot be injected: {error}') from error


def _attempt(backbone: nn.Module, selection: Selection, wanted: set[str], method: TuningMethod) -> set[str]:
    """Names of the tensors that ``method`` injects; they stay if they equal ``wanted``."""
    with suppress(InjectionError, SelectionMismatchError):
        method.inject_selected(backbone, selection)
    found = injected_names(backbone)
    if found != wanted:
        unload(backbone)
    return found


def _freeze(backbone: nn.Module, surplus: set[str], wanted: set[str]) -> bool:
    """Freeze the modules with a name in ``surplus`` and none in ``wanted``; returns whether any was not frozen."""
    moving = []
    for path, part in backbone.named_modules():
        inside = tuple(any(name.startswith(f'{path}.') for name in names) for names in (surplus, wanted))
        if inside == (True, False):
            moving += [value for value in part.parameters() if value.requires_grad]
    for value in moving:
        value.requires_grad_(False)
    return bool(moving)


@contextmanager
def thawed(backbone: nn.Module) -> Iterator[None]:
    """Unfreeze all of ``backbone`` within the context."""
    flags = [(value, value.requires_grad) for value in backbone.parameters()]
    backbone.requires_grad_(True)
    try:
        yield
    finally:
        for value, flag in flags:
            value.requires_grad_(flag)
