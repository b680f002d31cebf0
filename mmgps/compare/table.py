"""The results of a comparison, by run and by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from .metrics import Metric


@dataclass(frozen=True)
class Summary:
    """A method over its seeds.

    Args:
        label: Of the method.
        rows: Its runs.
        costs: Its mean ``step_s`` and ``peak_bytes``.
    """

    label: str
    rows: Sequence[Mapping[str, Any]]
    costs: Mapping[str, float]

    def scores(self, metric: Metric) -> list[float]:
        """The scores of the runs that have one."""
        return [row[metric.key] for row in self.rows if row.get(metric.key) is not None]

    def deviation(self, metric: Metric) -> float | None:
        """Standard deviation over seeds, with n - 1; None for a single one."""
        scores = self.scores(metric)
        return stdev(scores) if len(scores) > 1 else None

    def score(self, metric: Metric) -> str:
        """Mean and deviation, in words."""
        scores, deviation = self.scores(metric), self.deviation(metric)
        if not scores:
            return '-'
        return f'{mean(scores):.2f}' + (f' ± {deviation:.2f}' if deviation is not None else '')


@dataclass(frozen=True)
class Comparison:
    """What was found so far.

    Args:
        settings: As JSON values.
        rows: A mapping for each run that counts, methods in the order they were asked for.
        trials: A mapping for each trial.
        metrics: The scores that the rows have.
        costs: Label to costs measured apart; None if they are those of the runs.
    """

    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    trials: Sequence[Mapping[str, Any]]
    metrics: Sequence[Metric]
    costs: Mapping[str, Mapping[str, float]] | None = None

    def content(self) -> dict[str, Any]:
        """For the JSON file."""
        return dict(settings=self.settings, rows=list(self.rows), trials=list(self.trials), costs=self.costs)

    def summaries(self) -> list[Summary]:
        """A summary for each method that has a row."""
        labels = dict.fromkeys(row['method'] for row in self.rows)
        return [self._summary(label, [row for row in self.rows if row['method'] == label]) for label in labels]

    def _summary(self, label: str, rows: Sequence[Mapping[str, Any]]) -> Summary:
        if self.costs is not None:
            return Summary(label, rows, self.costs.get(label, {}))
        found = {cost: [row[cost] for row in rows if row[cost]] for cost in ('step_s', 'peak_bytes')}
        return Summary(label, rows, {cost: mean(values) for cost, values in found.items() if values})
