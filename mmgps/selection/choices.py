"""Rules that turn scores into chosen connections.

A rule receives the scores layer by layer and never needs all of them in memory at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from .top import top_per_row


class Choice(Protocol):
    """A rule of choice."""

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        """Choose connections.

        Args:
            scores: Layer name to scores ``[neurons, fan_in]``. May compute each entry when it is asked for.
            k: Connections per neuron, on average for the rules that do not choose per neuron.

        Returns:
            Layer name to ascending flat positions in its scores, int64.
        """
        ...


class PerNeuron:
    """The ``k`` best connections of every neuron: the paper's rule, section 3.1. ``k`` is clamped to the fan-in."""

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        return {name: top_per_row(scores[name], k) for name in scores}


class PerLayer:
    """The ``k * neurons`` best connections of every layer, whichever neurons they enter (ablation)."""

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        chosen = {}
        for name in scores:
            rows = scores[name]
            chosen[name] = top_per_row(rows.reshape(1, -1), k * len(rows))
        return chosen


class NetworkWide:
    """The ``k * neurons`` best connections of the whole network (ablation). Among ties the earlier layer wins."""

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        budget, best = self._survey(scores, k)
        chosen = {}
        bound = best.min() if len(best) else torch.tensor(torch.inf)
        room = budget - int((best > bound).sum())
        for name in scores:
            flat = scores[name].flatten()
            tied = (flat == bound.to(flat.device)).nonzero().flatten()[:room]
            room -= len(tied)
            above = (flat > bound.to(flat.device)).nonzero().flatten()
            chosen[name] = torch.cat([above, tied]).sort().values
        return chosen

    @staticmethod
    def _survey(scores: Mapping[str, Tensor], k: int) -> tuple[int, Tensor]:
        """The budget and the scores that fill it, layer by layer."""
        budget = total = 0
        sizes = {name: scores[name].shape for name in scores}
        for neurons, fan_in in sizes.values():
            budget, total = budget + k * neurons, total + neurons * fan_in
        budget = min(budget, total)
        best = torch.empty(0)
        for name in scores:
            flat = scores[name].flatten()
            merged = torch.cat([best.to(flat), flat.topk(min(budget, len(flat))).values])
            best = merged.topk(min(budget, len(merged))).values
        return budget, best
