"""The measured numbers of a method."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """What one method costs.

    Args:
        step_s: Median seconds of a step.
        saved_bytes: Bytes that the forward pass keeps for its backward.
        peak_bytes: Most memory in use; None where it was not measured.
        optimizer_bytes: Bytes of the optimizer's state.
        reduced_bytes: Bytes of gradients that data-parallel processes exchange in a step.
        trained: Numbers that move, of the whole model.
    """

    step_s: float
    saved_bytes: int
    peak_bytes: int | None
    optimizer_bytes: int
    reduced_bytes: int
    trained: int

    @property
    def optimizer_bytes_per_number(self) -> float:
        return self.optimizer_bytes / self.trained

    @property
    def reduced_bytes_per_number(self) -> float:
        return self.reduced_bytes / self.trained


@dataclass(frozen=True)
class SelectionCost:
    """What choosing connections takes.

    Args:
        batches: Of the pass.
        pass_s: Median seconds of the selection pass over them.
        plain_s: Median seconds of the forward and backward pass of full fine-tuning over the same batches.
        choice_s: K to the seconds of choosing from the summed gradients.
    """

    batches: int
    pass_s: float
    plain_s: float
    choice_s: dict[str, float]

    LIMIT = 1.15

    @property
    def ratio(self) -> float:
        return self.pass_s / self.plain_s
