"""A plain network of the base architecture out of base and delta."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from mmgps.tuning import InjectionError, TuningMethod, merge_operations

from .apply import AppliedDelta
from .compatibility import backbone_of
from .delta import Delta


class DeltaMergeError(ValueError):
    """A delta cannot become numbers of the base architecture."""


def merge(model: nn.Module, delta: Delta, method: TuningMethod | None = None) -> dict[str, Tensor]:
    """The state dict of the trained network, in the names and shapes of the base architecture.

    Where the delta has only numbers of the base, they are the trained network's bit for bit; LoRA and SSF are folded
    into the weights, which rounds.

    Args:
        model: With the numbers of the base; it is left as it is, a copy is changed.
        delta: To merge.
        method: The method of the delta if it adds modules and is none of mmgps.

    Raises:
        DeltaMergeError: If the method computes what the base architecture cannot, as adapters and prompts do.
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
