"""How the gradients of a layer are spread, and where the chosen ones stand among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .roles import describe
from .selection import Selection

PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE = 100_000
"""Numbers of a layer that are sorted; of more, every n-th is."""


@dataclass(frozen=True)
class Quantiles:
    """Magnitudes of accumulated gradients at :data:`PROBABILITIES`.

    Args:
        of_all: Of all connections of a layer.
        of_chosen: Of its chosen ones.
    """

    of_all: tuple[float, ...]
    of_chosen: tuple[float, ...]


def gradient_quantiles(
    backbone: nn.Module, selection: Selection, gradients: Mapping[str, Tensor]
) -> dict[str, Quantiles]:
    """Weight to the spread of its gradients, for those of which connections are chosen.

    Args:
        backbone: What ``selection`` was made for.
        selection: What was chosen.
        gradients: Accumulated gradients, by weight; of several for each connection the first, which is the sum.
    """
    found = {}
    described = describe(backbone)
    for name, connections in selection.connections.items():
        if name in gradients and len(connections):
            gradient = gradients[name].reshape(-1, *described[name].value.shape)[0]
            rows = described[name].neurons.to_rows(gradient).abs().reshape(-1)
            chosen = rows[connections.positions.to(rows.device)]
            found[name] = Quantiles(_quantiles(rows), _quantiles(chosen))
    return found


def _quantiles(values: Tensor) -> tuple[float, ...]:
    sample = values[:: max(1, len(values) // SAMPLE)].double()
    return tuple(torch.quantile(sample, torch.tensor(PROBABILITIES, dtype=torch.double, device=sample.device)).tolist())
