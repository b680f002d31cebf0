"""Sensitivity-aware fine-tuning (He et al., ICCV 2023)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from mmgps.rewiring import Structure, drop_compiled
from mmgps.selection import (
    Connections,
    Parameter,
    Role,
    Selection,
    SelectionMismatchError,
    SquaredGradientSum,
    architecture_fingerprint,
    top_of_network,
)

from .adapter import Bottleneck
from .base import beside, positive, trainable
from .lora import SUPPORTED, low_rank
from .operations import Operation, check_connected, place
from .sites import Site, check_called, find_sites


class SPT(ABC):
    """Spend a budget on the most sensitive connections of the whole network.

    A weight gets a module if it has at least as many sensitive connections as that module has parameters. Otherwise
    its sensitive connections are trained. So the trained numbers never exceed the budget.

    Args:
        budget: Numbers to train: a count, or below 1 a share of the connections of the backbone.
        rank: Rank of the factors, or width of the bottleneck.

    Raises:
        ValueError: For a budget that is not positive, or a rank below 1.
    """

    name: str
    needs_gradient = True
    accumulation = SquaredGradientSum()

    def __init__(self, budget: float = 0.005, rank: int = 8) -> None:
        if not budget > 0:
            raise ValueError(f'budget must be above 0, a count of numbers or a share below 1; got {budget!r}')
        self.budget, self.rank = budget, positive('rank', rank)

    def settings(self) -> dict[str, object]:
        return {'budget': self.budget, 'rank': self.rank}

    def candidates(self, backbone: nn.Module) -> dict[str, Parameter]:
        return trainable(backbone, (Role.CONNECTION,))

    def select(self, backbone: nn.Module, gradients: Mapping[str, Tensor] | None) -> Selection:
        assert gradients is not None
        candidates = self.candidates(backbone)
        total = sum(entry.value.numel() for entry in candidates.values())
        budget = round(self.budget * total if self.budget < 1 else self.budget)
        rows = {name: entry.neurons.to_rows(gradients[name]) for name, entry in candidates.items()}
        chosen = {name: found for name, found in top_of_network(rows, budget).items() if len(found)}
        whole: list[str] = []
        for site, module, names in self._modules(backbone):
            size = sum(value.numel() for value in module.parameters())
            if site.name in chosen and len(chosen[site.name]) >= size:
                check_called(site, self.name)
                del chosen[site.name]
                whole += names
        connections = {
            name: Connections(places.cpu(), candidates[name].neurons.neurons, candidates[name].neurons.fan_in)
            for name, places in chosen.items()
        }
        return Selection(self.name, connections, tuple(whole), architecture_fingerprint(backbone), self.settings())

    def inject_selected(self, backbone: nn.Module, selection: Selection) -> dict[nn.Parameter, list[nn.Parameter]]:
        before = Structure(backbone)
        missing = set(selection.whole) - dict(backbone.named_parameters()).keys()
        try:
            for site, module, names in self._modules(backbone):
                if missing.issuperset(names):
                    place(site, module)
                    missing.difference_update(names)
            if missing:
                raise SelectionMismatchError(
                    f'the selection trains {min(missing)!r}, for which {type(backbone).__name__} has no layer; it was '
                    'made for another architecture'
                )
            check_connected(backbone)
            drop_compiled()
        except BaseException:
            before.restore()
            raise
        return beside(backbone)

    def _modules(self, backbone: nn.Module) -> Iterator[tuple[Site, Operation, list[str]]]:
        """Each site that supports a module, a new module for it, and the names of its parameters."""
        for site in find_sites(backbone):
            if site.part in SUPPORTED:
                module = self.module(site)
                yield site, module, [site.parameter_name(module.key, name) for name, _ in module.named_parameters()]

    @abstractmethod
    def module(self, site: Site) -> Operation:
        """The module for a sensitive weight."""


class SPTLoRA(SPT):
    """Sensitive weights get low-rank factors."""

    name = 'spt-lora'

    def module(self, site: Site) -> Operation:
        return low_rank(site, self.rank, 1.0)


class SPTAdapter(SPT):
    """Sensitive weights get an adapter behind them."""

    name = 'spt-adapter'

    def module(self, site: Site) -> Operation:
        return Bottleneck(site, self.rank)
