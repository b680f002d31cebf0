"""Rules that choose connections by their scores.

A rule reads the scores layer by layer and never holds all of them in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class ConnectionChoice(Protocol):
    """A rule that chooses connections by their scores."""

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        """Choose connections.

        Args:
            scores: Layer name to scores ``[neurons, fan_in]``. The mapping may compute an entry when it is read.
            k: Connections per neuron, on average for rules that do not choose per neuron.

        Returns:
            Layer name to ascending flat positions in its scores, int64.
        """
        ...


class PerNeuron:
    """Chooses the ``k`` best connections of every neuron, at most its fan-in: the paper's rule, section 3.1."""

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        return {name: top_per_row(scores[name], k) for name in scores}


class SharedColumns:
    """Chooses the ``k`` best connections of every neuron among the inputs that most neurons of its layer would choose.

    This bounds the memory and the matrix products of compact training.

    Args:
        columns: Number of inputs per layer, raised to ``k`` and clamped to the fan-in. Among inputs that equally many
            neurons choose, the lower index wins.

    Raises:
        ValueError: For ``columns`` below 1.
    """

    def __init__(self, columns: int = 8) -> None:
        if columns < 1:
            raise ValueError(f'columns must be the number of inputs that a layer shares, at least 1; got {columns}')
        self.columns = columns

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        return {name: self._choose(scores[name], k) for name in scores}

    def _choose(self, rows: Tensor, k: int) -> Tensor:
        fan_in = rows.shape[1]
        votes = torch.bincount(top_per_row(rows, k) % fan_in, minlength=fan_in)
        shared = top_per_row(votes[None], max(self.columns, k))
        places = top_per_row(rows[:, shared], k)
        return places // len(shared) * fan_in + shared[places % len(shared)]


class PerLayer:
    """Chooses the ``k * neurons`` best connections of every layer, whichever neurons they enter (ablation)."""

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        chosen = {}
        for name in scores:
            rows = scores[name]
            chosen[name] = top_per_row(rows.reshape(1, -1), k * len(rows))
        return chosen


class NetworkWide:
    """Chooses the ``k * neurons`` best connections of the whole network (ablation); the earlier layer wins ties."""

    def choose(self, scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        return top_of_network(scores, k * sum(scores[name].shape[0] for name in scores))


def top_of_network(scores: Mapping[str, Tensor], budget: int) -> dict[str, Tensor]:
    """Flat positions of the ``budget`` largest scores of all layers together, ascending within each layer.

    The earlier layer wins ties, and within a layer the lower position.

    Args:
        scores: Layer name to scores. The mapping may compute an entry when it is read.
        budget: Clamped to the number of scores.
    """
    best = _best(scores, budget)
    chosen = {}
    bound = best.min() if len(best) else torch.tensor(torch.inf)
    room = len(best) - int((best > bound).sum())
    for name in scores:
        flat = scores[name].flatten()
        tied = (flat == bound.to(flat.device)).nonzero().flatten()[:room]
        room -= len(tied)
        above = (flat > bound.to(flat.device)).nonzero().flatten()
        chosen[name] = torch.cat([above, tied]).sort().values
    return chosen


def _best(scores: Mapping[str, Tensor], budget: int) -> Tensor:
    """The ``budget`` largest scores, found layer by layer."""
    best = torch.empty(0)
    for name in scores:
        flat = scores[name].flatten()
        merged = torch.cat([best.to(flat), flat.topk(min(budget, len(flat))).values])
        best = merged.topk(min(budget, len(merged))).values
    return best


def top_per_row(scores: Tensor, k: int) -> Tensor:
    """Flat positions of the ``k`` largest scores of every row, ascending.

    Among equal scores the lowest column wins, so a row of zeros yields its first ``k`` columns. ``torch.topk`` alone
    promises no order among ties, and its order differs between devices.

    Args:
        scores: ``[rows, columns]``, without NaN.
        k: Entries per row; clamped to ``columns``.

    Returns:
        Positions in the flattened scores, int64 ``[rows * min(k, columns)]``.
    """
    columns = scores.shape[1]
    k = min(k, columns)
    smallest = scores.topk(k, dim=1).values[:, -1:]
    picked = scores >= smallest
    crowded = (picked.sum(1) > k).nonzero().flatten()
    if len(crowded):
        part, bound = scores[crowded], smallest[crowded]
        above, tied = part > bound, part == bound
        room = k - above.sum(1, keepdim=True)
        picked[crowded] = above | (tied & (tied.cumsum(1) <= room))
    return picked.flatten().nonzero().flatten()
