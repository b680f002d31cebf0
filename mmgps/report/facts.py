"""Facts about a selection, layer by layer, and the overlap of two selections."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from mmgps.selection import Connections, Quantiles, Selection, SelectionMismatchError
from mmgps.sparse import CompactTraining, Route
from mmgps.tuning import count_roles
from mmgps.tuning.sites import find_sites

BUSIEST = 5
COPIES = 3
"""Copies of a weight that full training with Adam holds besides it: its gradient and two moments."""


@dataclass(frozen=True)
class LayerFacts:
    """Facts about one weight with chosen connections.

    Args:
        name: Name of the weight in the backbone.
        part: Role of its layer, such as ``fc1``; ``other`` if unknown.
        neurons: Number of its outputs.
        fan_in: Inputs of each neuron.
        chosen: Number of trained connections.
        columns: Number of inputs that at least one neuron chose.
        busiest: Share of the chosen connections that start at the five most chosen inputs.
        route: Route that computes its gradient.
        kept_inputs: Share of the layer's input that is kept for the backward pass.
        bytes_saved: Bytes of gradients and Adam moments that training the whole weight would need in addition.
        gradients: Quantiles of the gradients that decided the choice, if known.
    """

    name: str
    part: str
    neurons: int
    fan_in: int
    chosen: int
    columns: int
    busiest: float
    route: str
    kept_inputs: float
    bytes_saved: int
    gradients: Quantiles | None = None

    @property
    def share(self) -> float:
        """Trained connections as a share of the weight."""
        return self.chosen / (self.neurons * self.fan_in)

    @property
    def column_share(self) -> float:
        """Chosen inputs as a share of all."""
        return self.columns / self.fan_in


@dataclass(frozen=True)
class SelectionFacts:
    """Facts about a selection.

    Args:
        method: Tuning method that made it.
        settings: Settings of the method.
        layers: Weights with chosen connections, in the order of the network.
        roles: Number of trained parameters of the backbone by role.
        total: Number of parameters of the backbone.
    """

    method: str
    settings: Mapping[str, Any]
    layers: tuple[LayerFacts, ...]
    roles: Mapping[str, int]
    total: int

    @property
    def trained(self) -> int:
        """Number of trained parameters of the backbone."""
        return sum(self.roles.values())

    @property
    def title(self) -> str:
        """One-line summary of the selection."""
        k = f', K={self.settings["k"]}' if 'k' in self.settings else ''
        chosen = sum(layer.chosen for layer in self.layers)
        return (
            f'{self.method}{k}: {self.trained:,} of {self.total:,} parameters of the backbone are trained '
            f'({self.trained / self.total:.2%}), {chosen:,} of them single connections'
        )

    def as_json(self) -> dict[str, Any]:
        """Return all facts as JSON values, with the shares."""
        layers = [{**asdict(x), 'share': x.share, 'column_share': x.column_share} for x in self.layers]
        return {**asdict(self), 'layers': layers, 'trained': self.trained}


def selection_facts(
    backbone: nn.Module,
    selection: Selection,
    gradients: Mapping[str, Quantiles] | None = None,
    routes: Mapping[str, Route] | None = None,
) -> SelectionFacts:
    """Collect the facts about ``selection``.

    Args:
        backbone: Backbone of the selection.
        selection: The selection.
        gradients: Gradient quantiles from :func:`mmgps.selection.gradient_quantiles`.
        routes: Routes of a running training; by default those that compact training would take.

    Raises:
        SelectionMismatchError: If it was made for another architecture.
    """
    if routes is None:
        with CompactTraining(backbone, selection) as training:
            routes = training.routes()
    parts = {site.name: site.part.value for site in find_sites(backbone)}
    place = {name: at for at, (name, _) in enumerate(backbone.named_parameters())}
    chosen = sorted(selection.resolve(backbone), key=lambda entry: place[entry[0].name])  # files sort by name
    layers = []
    for parameter, item in chosen:
        if len(item):
            name, size = parameter.name, parameter.value.element_size()
            known = (gradients or {}).get(name)
            layers.append(_layer(name, parts.get(name, 'other'), item, size, routes.get(name), known))
    total = sum(value.numel() for value in backbone.parameters())
    return SelectionFacts(
        selection.method, dict(selection.settings), tuple(layers), count_roles(backbone, selection), total
    )


def plain_modules(backbone: nn.Module) -> nn.Module:
    """Copy ``backbone`` with the same tensors but without a running training, which hides the parts of an attention."""
    tensors = [*backbone.parameters(), *backbone.buffers()]
    return copy.deepcopy(backbone, {id(value): value for value in tensors})


def counts_of_columns(connections: Connections) -> torch.Tensor:
    """Count the neurons that chose each input; int64 ``[fan_in]``."""
    return torch.bincount(connections.columns, minlength=connections.fan_in)


def _layer(
    name: str, part: str, item: Connections, size: int, route: Route | None, gradients: Quantiles | None
) -> LayerFacts:
    counts = counts_of_columns(item)
    busiest = float(counts.topk(min(BUSIEST, item.fan_in)).values.sum()) / len(item)
    saved = COPIES * size * (item.neurons * item.fan_in - len(item))
    kept = route.kept / route.inputs if route and route.inputs else 1.0
    kind = route.kind if route else 'masked'
    columns = int((counts > 0).sum())
    return LayerFacts(name, part, item.neurons, item.fan_in, len(item), columns, busiest, kind, kept, saved, gradients)


@dataclass(frozen=True)
class Overlap:
    """Overlap of two selections in one weight.

    Args:
        name: Name of the weight.
        first: Number of connections in the first selection.
        second: Number of connections in the second.
        shared: Number of connections in both.
        by_chance: Expected number in both if each neuron had chosen as many at random.
    """

    name: str
    first: int
    second: int
    shared: int
    by_chance: float

    @property
    def share(self) -> float:
        """Shared connections as a share of those in at least one of the selections."""
        return self.shared / max(1, self.first + self.second - self.shared)

    @property
    def chance_share(self) -> float:
        """Expected share for random choices."""
        return self.by_chance / max(1.0, self.first + self.second - self.by_chance)


def overlaps(first: Selection, second: Selection) -> list[Overlap]:
    """Compute the overlap of every weight with connections in both selections, in the order of the first.

    Raises:
        SelectionMismatchError: If they were made for different architectures.
    """
    if first.architecture != second.architecture:
        raise SelectionMismatchError(
            f'the selections were made for different architectures, {first.architecture[:12]} and '
            f'{second.architecture[:12]}: they have no common connections'
        )
    both = [name for name in first.connections if name in second.connections]
    found = [_overlap(name, first.connections[name], second.connections[name]) for name in both]
    return [entry for entry in found if entry.first and entry.second]


def in_all(parts: list[Overlap]) -> Overlap:
    """Sum the overlaps of all weights."""
    sums = {key: sum(getattr(part, key) for part in parts) for key in ('first', 'second', 'shared', 'by_chance')}
    return Overlap('all', **sums)


def _overlap(name: str, mine: Connections, its: Connections) -> Overlap:
    shared = int(torch.isin(mine.positions, its.positions).sum())
    counts = [torch.bincount(item.rows, minlength=item.neurons).double() for item in (mine, its)]
    by_chance = float((counts[0] * counts[1]).sum()) / mine.fan_in
    return Overlap(name, len(mine), len(its), shared, by_chance)
