"""The base class of methods that inject modules."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmgps.rewiring import Injected, Structure, base_parameters, drop_compiled
from mmgps.selection import Parameter, Role, Selection

from .base import WholeParameters
from .operations import check_connected
from .sites import InjectionError

_RECORD = '_mmgps_method'


class InjectionMethod(WholeParameters):
    """Base class of methods that inject modules into the backbone and train nothing else of it.

    ``mmgps.TunedBackbone`` injects them when the model is built. Otherwise :meth:`select` does so when training starts,
    and :meth:`inject_selected` on resuming.
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
            setattr(backbone, _RECORD, self)
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
    return cast('InjectionMethod | None', getattr(backbone, _RECORD, None))


def forget(backbone: nn.Module) -> None:
    """Remove the record that :func:`injected_by` reads."""
    vars(backbone).pop(_RECORD, None)


def generator_for(name: str) -> torch.Generator:
    """A generator that is a function of torch's seed and ``name`` alone."""
    return torch.Generator().manual_seed((torch.initial_seed() + zlib.crc32(name.encode())) % 2**63)
