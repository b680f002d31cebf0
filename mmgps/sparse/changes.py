"""Find numbers that changed between two steps, in weights or in the values of their chosen connections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .weight import TrainedWeight, is_sharded


def with_changed_values(weights: Sequence[TrainedWeight]) -> list[TrainedWeight]:
    """Weights whose values have changed since they were last read or written."""
    return _changed(weights, *values_and_agreed(weights))


def with_changed_weights(weights: Sequence[TrainedWeight]) -> list[TrainedWeight]:
    """Weights whose own chosen numbers have changed since then; sharded weights are not examined."""
    return _changed(_unsharded(weights), *weights_and_agreed(weights))


def values_and_agreed(weights: Sequence[TrainedWeight]) -> tuple[list[Tensor], list[Tensor]]:
    """The values now, and as they were last read or written."""
    return [weight.values.detach() for weight in weights], [weight.agreed for weight in weights]


def weights_and_agreed(weights: Sequence[TrainedWeight]) -> tuple[list[Tensor], list[Tensor]]:
    """The chosen numbers of the unsharded weights now, and as they were last read or written."""
    weights = _unsharded(weights)
    return [weight.in_dense() for weight in weights], [weight.agreed for weight in weights]


def different_bits(ones: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """One bool ``[]`` per type and device: True if a tensor of ``ones`` differs from its counterpart."""
    groups: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
    for one, other in zip(ones, others, strict=True):
        mine, theirs = groups.setdefault((one.dtype, one.device), ([], []))
        mine.append(one.reshape(-1))
        theirs.append(other.reshape(-1))
    return [(_bits(mine) != _bits(theirs)).any() for mine, theirs in groups.values()]


def _unsharded(weights: Sequence[TrainedWeight]) -> list[TrainedWeight]:
    return [weight for weight in weights if not is_sharded(weight.dense)]


@torch.no_grad()
def _changed(weights: Sequence[TrainedWeight], now: list[Tensor], agreed: list[Tensor]) -> list[TrainedWeight]:
    if not any(different_bits(now, agreed)):
        return []
    pairs = zip(weights, now, agreed, strict=True)
    return [weight for weight, one, other in pairs if any(different_bits([one], [other]))]


def _bits(parts: list[Tensor]) -> Tensor:
    whole = torch.cat(parts)
    return whole.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[whole.element_size()])


class LateComparisons:
    """Comparisons on a device, whose results are read one step later so that no step waits for the device."""

    def __init__(self) -> None:
        self._recent: list[Tensor] = []
        self._due: list[Tensor] = []

    def add(self, ones: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        """Compare each tensor of ``ones`` bit by bit with its counterpart, except while a CUDA graph is captured."""
        if not _capturing():
            self._recent += different_bits(ones, others)

    def check(self, everything: bool = False) -> None:
        """Read the results of the previous step, or all of them.

        Raises:
            RuntimeError: If numbers differed.
        """
        if _capturing():
            return
        found, self._due = self._due, self._recent
        self._recent = []
        if everything:
            found, self._due = found + self._due, []
        if any(bool(flag) for flag in found):
            raise RuntimeError(
                'chosen numbers in a weight, or in the parameter that the optimizer holds for it, were changed between '
                'two steps in a way that torch does not count (through .data), so the last step missed the change; '
                'write under torch.no_grad() without .data, or use mmgps.MaskedTraining'
            )


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
