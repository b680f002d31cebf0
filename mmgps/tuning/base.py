"""The protocol of a fine-tuning method, its two base classes, and the freezing of everything it does not train."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from mmgps.rewiring import Injected, Structure, base_parameters, drop_compiled
from mmgps.selection import (
    Accumulation,
    GradientSum,
    Parameter,
    Role,
    Selection,
    SelectionMismatchError,
    architecture_fingerprint,
    describe,
)
from mmgps.sparse import guard

from .operations import check_connected
from .sites import InjectionError

RECORD = '_mmgps_method'
"""Attribute of a backbone with injected modules that holds their method."""


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
        """True if :meth:`select` needs the gradients of a pass over the training data."""
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
            Weight to the new parameters that get the same optimizer options. Empty for methods that add nothing or did
            so when the model was built.
        """
        ...


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
        """Return True if the method trains ``parameter``."""


class InjectionMethod(WholeParameters):
    """Base class of methods that inject modules into the backbone and train nothing else of it.

    ``mmgps.TunedBackbone`` injects them when the model is built. Otherwise :meth:`select` does so when training starts,
    and :meth:`inject_selected` when it resumes.
    """

    def inject(self, backbone: nn.Module) -> None:
        """Inject the modules.

        Their first numbers depend only on torch's seed and their names. No random number is drawn from the global
        generator, so the rest of the model starts as it would without the method.

        Raises:
            InjectionError: If the method does not support ``backbone``, or if that has injected modules already.
                This or any other exception leaves ``backbone`` as it was.
        """
        if any(isinstance(module, Injected) for module in backbone.modules()):
            raise InjectionError(
                f'{type(backbone).__name__} has injected modules already; build it anew for {self.name}'
            )
        before = Structure(backbone)
        try:
            self.put_in_place(backbone)
            setattr(backbone, RECORD, self)
            drop_compiled()
        except BaseException:
            before.restore()
            raise

    @abstractmethod
    def put_in_place(self, backbone: nn.Module) -> None:
        """Create the modules and place them; called by :meth:`inject`."""

    def select(self, backbone: nn.Module, gradients: Mapping[str, Tensor] | None = None) -> Selection:
        """Select all injected parameters.

        Raises:
            InjectionError: If another method injected modules, or if some of them do not run.
        """
        self._ensure(backbone)
        check_connected(backbone)
        return super().select(backbone)

    def inject_selected(self, backbone: nn.Module, selection: Selection) -> dict[nn.Parameter, list[nn.Parameter]]:
        self._ensure(backbone)
        return beside(backbone)

    def trains(self, parameter: Parameter) -> bool:
        return parameter.role is Role.INJECTED

    def _ensure(self, backbone: nn.Module) -> None:
        found = injected_by(backbone)
        if found is None:
            self.inject(backbone)
        elif (found.name, found.settings()) != (self.name, self.settings()):
            raise InjectionError(
                f'{type(backbone).__name__} was built with {found.name} with {found.settings()}, and the hook asks for '
                f'{self.name} with {self.settings()}; name the method in one place'
            )


def beside(backbone: nn.Module) -> dict[nn.Parameter, list[nn.Parameter]]:
    """Parameter of the base to the injected parameters of the same layer."""
    found = {}
    for parent in backbone.modules():
        new = [v for child in parent.children() if isinstance(child, Injected) for v in child.parameters()]
        if new and not isinstance(parent, Injected):
            found[next(value for _, value in base_parameters(parent))] = new
    return found


def injected_by(backbone: nn.Module) -> InjectionMethod | None:
    """The method that injected modules into ``backbone``, None if there is none."""
    return cast('InjectionMethod | None', getattr(backbone, RECORD, None))


def generator_for(name: str) -> torch.Generator:
    """A generator that is a function of torch's seed and ``name`` alone."""
    return torch.Generator().manual_seed((torch.initial_seed() + zlib.crc32(name.encode())) % 2**63)


def positive(name: str, value: int) -> int:
    """``value`` if it is an integer of at least 1.

    Raises:
        ValueError: Otherwise.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{name} must be an integer of at least 1, got {value!r}')
    return value


def trainable(backbone: nn.Module, roles: Collection[Role] = tuple(Role)) -> dict[str, Parameter]:
    """The parameters of ``backbone`` that the user did not freeze and that have one of ``roles``."""
    described = describe(backbone).items()
    return {name: entry for name, entry in described if entry.value.requires_grad and entry.role in roles}


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
            else 'it has no linear layer or convolution'
        )
        raise ValueError(
            f'{method.name} finds nothing to choose from in {type(backbone).__name__}: {there}; {UNFREEZE}'
        )


def check_chosen(selection: Selection, backbone: nn.Module) -> None:
    """Make sure that ``selection`` trains something of ``backbone``.

    Raises:
        ValueError: If it does not.
    """
    if not selection.connections and not selection.whole:
        frozen = [not value.requires_grad for value in backbone.parameters()]
        raise ValueError(
            f'{selection.method} trains nothing of {type(backbone).__name__}: {sum(frozen)} of its {len(frozen)} '
            f'parameters are frozen; {UNFREEZE}'
        )


UNFREEZE = "unfreeze some (frozen_stages=-1 and the like), or train the head alone by type='mmgps.LinearProbe'"


def check_trainable(backbone: nn.Module, selection: Selection) -> None:
    """Make sure that ``selection`` trains nothing of ``backbone`` that the user froze.

    Raises:
        SelectionMismatchError: Names the frozen parameters.
    """
    trained = {*selection.connections, *selection.whole}
    frozen = [name for name, value in backbone.named_parameters() if name in trained and not value.requires_grad]
    if frozen:
        raise SelectionMismatchError(
            f'the selection trains {len(frozen)} parameters that {type(backbone).__name__} was built with frozen: '
            f'{", ".join(frozen)}; select anew, or build the backbone as it was when the selection was made '
            '(frozen_stages and the like)'
        )


def freeze_unselected(backbone: nn.Module, selection: Selection) -> list[nn.Parameter]:
    """Freeze every parameter of ``backbone`` of which ``selection`` trains nothing, and unfreeze the others.

    Until a :class:`SparseTraining` starts, an optimizer that steps a weight with selected connections raises an error.

    Returns:
        The frozen parameters.

    Raises:
        SelectionMismatchError: If the selection was made for another architecture; nothing is changed then.
    """
    partly = {parameter.name: parameter.value for parameter, _ in selection.resolve(backbone)}
    trained = {*partly, *selection.whole}
    guard(partly.values())
    for name, value in backbone.named_parameters():
        value.requires_grad_(name in trained)
    return [value for name, value in backbone.named_parameters() if name not in trained]
