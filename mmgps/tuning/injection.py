"""What the methods that add modules share."""

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
    """Base of the methods that put modules beside those of the backbone and train nothing else of it.

    ``mmgps.TunedBackbone`` puts them in place when the model is built. Where that was not done, :meth:`select` does it
    when training starts, and :meth:`inject_selected` on resuming.
    """

    def inject(self, backbone: nn.Module) -> None:
        """Put the modules in place.

        Their first numbers follow from torch's seed and their names alone; no random number is drawn, so that the
        rest of the model starts as it would without the method.

        Raises:
            InjectionError: If the method cannot do this on ``backbone``, or if it has injected modules already.
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
        """What :meth:`inject` does."""

    def select(self, backbone: nn.Module, gradients: Mapping[str, Tensor] | None = None) -> Selection:
        """Everything that was injected.

        Raises:
            InjectionError: If another method injected something, or if some of it does not run.
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
    """Parameter of the base to the injected ones that belong to the same layer."""
    found = {}
    for parent in backbone.modules():
        new = [v for child in parent.children() if isinstance(child, Injected) for v in child.parameters()]
        if new and not isinstance(parent, Injected):
            found[next(value for _, value in base_parameters(parent))] = new
    return found


def injected_by(backbone: nn.Module) -> InjectionMethod | None:
    """The method that put modules into ``backbone`` when it was built."""
    return cast('InjectionMethod | None', getattr(backbone, _RECORD, None))


def forget(backbone: nn.Module) -> None:
    """Let :func:`injected_by` know of no method."""
    vars(backbone).pop(_RECORD, None)


def generator_for(name: str) -> torch.Generator:
    """A generator that is a function of torch's seed and ``name`` alone."""
    return torch.Generator().manual_seed((torch.initial_seed() + zlib.crc32(name.encode())) % 2**63)
