"""Merge base and delta into a plain network of the base architecture."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from mmgps.tuning import InjectionError, TuningMethod, merge_operations

from .apply import AppliedDelta
from .compatibility import backbone_of
from .delta import Delta


class DeltaMergeError(ValueError):
    """A delta cannot be merged into the base architecture."""


def merge(model: nn.Module, delta: Delta, method: TuningMethod | None = None) -> dict[str, Tensor]:
    """The state dict of the trained network, in the names and shapes of the base architecture.

    If the delta only changes numbers of the base, the result equals the trained network bit for bit. LoRA and SSF are
    folded into the weights, which rounds.

    Args:
        model: With the numbers of the base; it is not changed, a copy is.
        delta: The delta to merge.
        method: The method of the delta, if it injects modules and is not part of mmgps.

    Raises:
        DeltaMergeError: If the base architecture cannot compute the method, as with adapters and prompts.
        DeltaMismatchError: If the delta does not fit ``model``.
    """
    merged = copy.deepcopy(model)
    AppliedDelta(merged, delta, method)
    try:
        merge_operations(backbone_of(merged, delta))
    except InjectionError as error:
        raise DeltaMergeError(
            f'a delta of {delta.selection.method} cannot be merged: {error}; ship base and delta, and apply it where '
            'mmgps is installed'
        ) from error
    return {name: value.detach().clone() for name, value in merged.state_dict().items()}
