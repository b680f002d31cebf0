"""What a method does to a fresh backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn
from torch.optim import Optimizer

from mmgps.selection import Selection
from mmgps.sparse import CompactTraining, LeanOption, SparseTraining, start_options
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


@dataclass(frozen=True)
class Lean:
    """A method with options that change how its network computes.

    Args:
        recipe: The method.
        options: Make the options.
    """

    recipe: Recipe
    options: Callable[[], Sequence[LeanOption]]

    def apply(self, backbone: nn.Module) -> Selection:
        return self.recipe.apply(backbone)

    def training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        return LeanTraining(self.recipe.training(backbone, selection), backbone, self.options())


class LeanTraining:
    """What trains the connections, and starts the options after it.

    Args:
        training: What trains.
        backbone: The network.
        options: For it.
    """

    def __init__(self, training: SparseTraining, backbone: nn.Module, options: Sequence[LeanOption]) -> None:
        self._training, self._backbone, self._options = training, backbone, options

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        return self._training.replacements()

    def check_optimizer(self, optimizer: Optimizer) -> None:
        self._training.check_optimizer(optimizer)

    def start(self, registered: bool = True) -> None:
        self._training.start(registered)
        start_options(self._options, self._backbone)

    def close(self) -> None:
        self._training.close()

    def watch_weights(self) -> None:
        self._training.watch_weights()

    def before_step(self) -> None:
        self._training.before_step()

    def after_step(self) -> None:
        self._training.after_step()

    def report(self) -> str:
        return '\n'.join([self._training.report(), *(option.report() for option in self._options)])
