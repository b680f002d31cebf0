"""Check that a delta fits a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmgps.utils.text import listed

from .base import BaseFingerprint, DeltaMismatchError, injected_names, tensors_of
from .delta import Delta


def verify(model: nn.Module, delta: Delta, base: BaseFingerprint | None = None) -> None:
    """Make sure that ``delta`` on ``model`` gives the network that it was taken from, bit for bit.

    Args:
        model: With the numbers of the base in its backbone. Those outside the backbone do not matter.
        delta: The delta to apply.
        base: The base of ``model`` if known; else it is read, which takes time.

    Raises:
        DeltaMismatchError: If the backbone differs or has another delta applied, or if a full tensor of the delta has
            no counterpart of its shape and type; names the difference.
    """
    backbone = backbone_of(model, delta)
    delta.base.check(base or BaseFingerprint.of(backbone), f'the {type(backbone).__name__}')
    missing = {delta.prefix + name for name in delta.injected()}
    found = tensors_of(model)
    check_tensors({n: v for n, v in delta.tensors.items() if n not in missing or n in found}, found)
    injected = {delta.prefix + name for name in injected_names(backbone)}
    lacking = [n for n in found if n not in delta.tensors and (n in injected or not n.startswith(delta.prefix))]
    if lacking:
        raise DeltaMismatchError(
            f'the network has {listed(lacking)}, of which the delta says nothing: it was made for another head '
            'or method'
        )


def backbone_of(model: nn.Module, delta: Delta) -> nn.Module:
    """The part of ``model`` that the delta tunes.

    Raises:
        DeltaMismatchError: If it has no such part.
    """
    try:
        return model.get_submodule(delta.target)
    except AttributeError as error:
        raise DeltaMismatchError(
            f'the delta tunes {delta.target!r}, and {type(model).__name__} has only '
            f'{", ".join(name for name, _ in model.named_children())}'
        ) from error


def check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Make sure that ``found`` has a tensor of the same name, shape and type for each of ``wanted``.

    Raises:
        DeltaMismatchError: Names those without a counterpart.
    """
    absent = [name for name in wanted if name not in found]
    if absent:
        raise DeltaMismatchError(f'the delta holds {listed(absent)}, for which the network has no place')
    wrong = [
        f'{name} {tuple(value.shape)} {value.dtype}, found {tuple(found[name].shape)} {found[name].dtype}'
        for name, value in wanted.items()
        if (value.shape, value.dtype) != (found[name].shape, found[name].dtype)
    ]
    if wrong:
        raise DeltaMismatchError(
            f'the delta holds tensors of another shape or type: {listed(wrong)}; build the network by the config of '
            'its run, which tools/delta.py info --json prints: heads of another form take a network each'
        )
