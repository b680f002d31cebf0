"""What a method does to a fresh backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from mmgps.selection import Selection
from mmgps.sparse import CompactTraining, SparseTraining
from mmgps.tuning import TuningMethod

SparseClass = Callable[[nn.Module, Selection], SparseTraining]


class Recipe(Protocol):
    """One method of the benchmark. Travels to child processes."""

    def apply(self, backbone: nn.Module) -> Selection:
        """Change ``backbone`` as the method needs it, and say which of its numbers are trained."""
        ...

    def training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        """What trains the chosen connections."""
        ...


@dataclass(frozen=True)
class Tuned:
    """A method that needs no gradient.

    Args:
        method: The method.
    """

    method: TuningMethod

    def apply(self, backbone: nn.Module) -> Selection:
        return self.method.select(backbone, None)

    def training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        return CompactTraining(backbone, selection)


@dataclass(frozen=True)
class Selected:
    """A selection that was made before.

    Args:
        selection: It.
        sparse: The class that trains it.
    """

    selection: Selection
    sparse: SparseClass

    def apply(self, backbone: nn.Module) -> Selection:
        return self.selection

    def training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        return self.sparse(backbone, selection)
