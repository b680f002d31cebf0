"""The protocol of a fine-tuning method, which decides which numbers of the backbone are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from mmgps.selection import Accumulation, GradientSum, Parameter, Role, Selection, architecture_fingerprint, describe


class TuningMethod(Protocol):
    """A fine-tuning method: decides which numbers of a backbone are trained.

    Every method trains everything outside the backbone (head, decoder). A parameter that the user froze, for example by
    ``frozen_stages``, stays frozen.
    """

    name: str

    @property
    def accumulation(self) -> Accumulation:
        """How the gradients of the batches are accumulated for :meth:`select`."""
        ...

    @property
    def needs_gradient(self) -> bool:
        """Whether :meth:`select` needs the gradients of a pass over the training data."""
        ...

    def candidates(self, backbone: nn.Module) -> dict[str, Parameter]:
        """The weights among whose connections the method chooses; the pass accumulates their gradients."""
        ...

    def settings(self) -> dict[str, object]:
        """The settings of the method, as JSON values: a run resumes only under the same settings."""
        ...

    def select(self, backbone: nn.Module, gradients: Mapping[str, Tensor] | None) -> Selection:
        """Decide which numbers are trained.

        Args:
            backbone: With the pre-trained weights in place.
            gradients: Accumulated gradients of :meth:`candidates`; None if ``needs_gradient`` is False.
        """
        ...

    def inject_selected(self, backbone: nn.Module, selection: Selection) -> dict[nn.Parameter, list[nn.Parameter]]:
        """Inject the modules that ``selection`` trains and the backbone lacks.

        Called before the optimizer takes over a new or restored selection.

        Returns:
            Weight to the new parameters that get the same optimizer options. Empty for methods that add nothing, or did
            so when the model was built.
        """
        ...


def trainable(backbone: nn.Module) -> dict[str, Parameter]:
    """The parameters of ``backbone`` that the user did not freeze."""
    return {name: entry for name, entry in describe(backbone).items() if entry.value.requires_grad}


def check_candidates(method: TuningMethod, backbone: nn.Module) -> None:
    """Make sure that a method that chooses by gradients has something to choose from.

    Raises:
        ValueError: If it has nothing; the message says what is frozen.
    """
    if method.needs_gradient and not method.candidates(backbone):
        weights = [name for name, entry in describe(backbone).items() if entry.role is Role.CONNECTION]
        there = (
            f'all {len(weights)} of its weights are frozen, first {weights[0]!r}'
            if weights
            else ('it has no linear layer or convolution')
        )
        raise ValueError(
            f'{method.name} finds nothing to choose from in {type(backbone).__name__}: {there}; unfreeze some '
            "(frozen_stages=-1 and the like), or train the head alone by type='mmgps.LinearProbe'"
        )


def check_chosen(selection: Selection, backbone: nn.Module) -> None:
    """Make sure that ``selection`` trains something of ``backbone``.

    Raises:
        ValueError: If it does not.
    """
    if not selection.connections and not selection.whole:
        values = list(backbone.parameters())
        frozen = sum(not value.requires_grad for value in values)
        raise ValueError(
            f'{selection.method} trains nothing of {type(backbone).__name__}, of which {frozen} of {len(values)} '
            'parameters are frozen; unfreeze some (frozen_stages=-1 and the like), or train the head alone by '
            "type='mmgps.LinearProbe'"
        )


class WholeParameters(ABC):
    """Base class of methods that train some parameters in full and no single connections."""

    name: str
    needs_gradient = False
    accumulation = GradientSum()

    def candidates(self, backbone: nn.Module) -> dict[str, Parameter]:
        return {}

    def settings(self) -> dict[str, object]:
        return {}

    def select(self, backbone: nn.Module, gradients: Mapping[str, Tensor] | None = None) -> Selection:
        whole = tuple(name for name, entry in trainable(backbone).items() if self.trains(entry))
        return Selection(self.name, {}, whole, architecture_fingerprint(backbone), self.settings())

    def inject_selected(self, backbone: nn.Module, selection: Selection) -> dict[nn.Parameter, list[nn.Parameter]]:
        return {}

    @abstractmethod
    def trains(self, parameter: Parameter) -> bool:
        """Whether the method trains ``parameter``."""
