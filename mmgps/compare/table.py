"""Results of a comparison: metrics, runs and methods, collected from finished runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from .candidates import Candidate
from .runs import Run, Settings


@dataclass(frozen=True)
class Metric:
    """A score of the validation set, in percent; higher is better.

    Args:
        key: Name in the JSON file.
        printed: Name in the evaluator's results, without the prefix that an evaluator may add.
        title: Column title.
    """

    key: str
    printed: str
    title: str

    def of(self, found: Mapping[str, float | None]) -> float | None:
        """Return the score from the results ``found``; None if it is missing or not a number."""
        names = [name for name in found if name == self.printed or name.endswith(f'/{self.printed}')]
        return found[names[0]] if names else None


METRICS = (
    Metric('dice', 'Dice', 'Dice'),
    Metric('iou', 'IoU', 'IoU'),
    Metric('mdice', 'mDice', 'mDice'),
    Metric('miou', 'mIoU', 'mIoU'),
    Metric('top1', 'accuracy/top1', 'top-1'),
)
"""Foreground scores per image, mmseg's class means, and the accuracy of a classifier. The first one that the evaluator
prints chooses the rates."""
KEPT = ('trained', 'total', 'backbone_trained', 'backbone_total', 'step_s', 'peak_bytes', 'iterations')
CIRCUMSTANCES = ('machine', 'device', 'threads', 'commit', 'python', 'torch', 'mmengine', 'mmcv', 'mmseg', 'mmpretrain')
COSTS = ('step_s', 'peak_bytes')


def present(results: Iterable[Mapping[str, float | None]]) -> list[Metric]:
    """Return the metrics that occur in any of ``results``."""
    names = dict.fromkeys((name for found in results for name in found), 0.0)
    return [metric for metric in METRICS if metric.of(names) is not None]


def leading(results: Iterable[Mapping[str, float | None]]) -> Metric:
    """Return the metric that chooses the rates.

    Raises:
        ValueError: If the evaluator prints no known metric.
    """
    results = list(results)
    found = present(results)
    if not found:
        printed = sorted({name for result in results for name in result})
        raise ValueError(
            f'the evaluator of the config prints {", ".join(printed) or "nothing"}; expected one of '
            f'{", ".join(metric.printed for metric in METRICS)}: add mmgps.PolypMetric or IoUMetric to val_evaluator'
        )
    return found[0]


@dataclass(frozen=True)
class MethodResult:
    """Results of a method over its seeds.

    Args:
        label: Label of the method.
        rows: Results of its runs, one per seed.
        costs: Mean ``step_s`` and ``peak_bytes``.
    """

    label: str
    rows: Sequence[Mapping[str, Any]]
    costs: Mapping[str, float]

    def scores(self, metric: Metric) -> list[float]:
        """Return the scores of the runs that have one."""
        return [row[metric.key] for row in self.rows if row.get(metric.key) is not None]

    def deviation(self, metric: Metric) -> float | None:
        """Return the sample standard deviation over seeds; None for a single seed."""
        scores = self.scores(metric)
        return stdev(scores) if len(scores) > 1 else None

    def score(self, metric: Metric) -> str:
        """Format mean and standard deviation."""
        scores, deviation = self.scores(metric), self.deviation(metric)
        if not scores:
            return '-'
        return f'{mean(scores):.2f}' + (f' ± {deviation:.2f}' if deviation is not None else '')


@dataclass(frozen=True)
class Comparison:
    """Results so far.

    Args:
        settings: Settings as JSON values.
        rows: One mapping per final run, methods in the requested order.
        trials: One mapping per trial.
        metrics: Metrics that occur in the rows.
        costs: Costs measured separately, by label; None to use the costs of the runs.
    """

    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    trials: Sequence[Mapping[str, Any]]
    metrics: Sequence[Metric]
    costs: Mapping[str, Mapping[str, float]] | None = None

    def content(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        return dict(settings=self.settings, rows=list(self.rows), trials=list(self.trials), costs=self.costs)

    def summaries(self) -> list[MethodResult]:
        """Return the results of each method that has a row."""
        labels = dict.fromkeys(row['method'] for row in self.rows)
        return [self._summary(label, [row for row in self.rows if row['method'] == label]) for label in labels]

    def _summary(self, label: str, rows: Sequence[Mapping[str, Any]]) -> MethodResult:
        if self.costs is not None:
            return MethodResult(label, rows, self.costs.get(label, {}))
        found = {cost: [row[cost] for row in rows if row[cost]] for cost in COSTS}
        return MethodResult(label, rows, {cost: mean(values) for cost, values in found.items() if values})


def collect(settings: Settings, trials: Mapping[str, Sequence[Run]], finals: Sequence[Run]) -> Comparison:
    """Collect the results of the runs that have finished.

    Args:
        settings: Settings of the comparison.
        trials: Trials by label.
        finals: Final runs.
    """
    tried = [(run, found) for runs in trials.values() for run in runs if (found := run.result())]
    done = [(run, found) for run in finals if (found := run.result())]
    results = [found['metrics'] for _, found in [*done, *tried]]
    chosen_by = leading(results) if results else None
    order = [candidate.label for candidate in settings.candidates]
    rows = sorted((_row(run, found) for run, found in done), key=lambda row: order.index(row['method']))
    return Comparison(
        _stated(settings, [found for _, found in done], chosen_by),
        rows,
        [
            dict(method=run.candidate.label, lr=run.lr, score=chosen_by.of(found['metrics']) if chosen_by else None)
            for run, found in tried
        ],
        present(found['metrics'] for _, found in done),
        settings.costs,
    )


def _row(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    scores = {metric.key: metric.of(found['metrics']) for metric in METRICS}
    return dict(
        method=run.candidate.label,
        seed=run.seed,
        **{key: score for key, score in scores.items() if score is not None},
        **{key: found[key] for key in KEPT},
        lr=run.lr,
        **{key: found.get(key) for key in ('machine', 'commit', 'load')},
    )


def _stated(settings: Settings, results: Sequence[Mapping[str, Any]], chosen_by: Metric | None) -> dict[str, Any]:
    """Return settings and circumstances for the reader, without paths or host names."""
    circumstances = {key: sorted({str(found[key]) for found in results if found.get(key)}) for key in CIRCUMSTANCES}
    return dict(
        config=settings.name,
        **settings.stated,
        seeds=list(settings.seeds),
        grids={label: list(grid) for label, grid in settings.grids.items()},
        fixed_rates=dict(settings.fixed),
        holdout=settings.share,
        holdout_seed=settings.split_seed,
        trial_share=settings.trial_share,
        scored_on='held-out training images' if settings.on_holdout else 'validation set',
        chosen_by=chosen_by.title if chosen_by else None,
        jobs=settings.jobs,
        **{key: '; '.join(values) for key, values in circumstances.items() if values},
    )


def read_costs(path: str | Path, candidates: Sequence[Candidate]) -> dict[str, dict[str, float]]:
    """Read the costs of the candidates that occur in a file.

    Args:
        path: File written by ``tools/benchmark.py --json``.
        candidates: Methods of the comparison.

    Returns:
        ``step_s`` and ``peak_bytes`` by label; without ``peak_bytes`` if it was not measured.

    Raises:
        ValueError: If the file holds the costs of no candidate, or was not written by that tool.
    """
    methods = json.loads(Path(path).read_text()).get('methods')
    if not isinstance(methods, dict):
        raise ValueError(f'{path} has no "methods"; give the file that tools/benchmark.py --json wrote')
    found = {}
    for candidate in candidates:
        name = next((name for name in _benchmark_names(candidate) if name in methods), None)
        if name is not None:
            found[candidate.label] = {cost: methods[name][cost] for cost in COSTS if methods[name].get(cost)}
    if not found:
        raise ValueError(
            f'{path} has costs of {", ".join(methods)} but of no compared method; measure one with tools/benchmark.py'
        )
    return found


def _benchmark_names(candidate: Candidate) -> Iterator[str]:
    """Yield the names that the benchmark may use for the candidate."""
    options = dict(candidate.options)
    yield candidate.label
    if candidate.name == 'gps' and options.keys() <= {'k'}:
        yield f'gps-compact-k{options.get("k", 1)}'
    elif candidate.name == 'lora' and options.keys() <= {'rank'}:
        yield f'lora-r{options.get("rank", 8)}'
    elif not options:
        yield candidate.name
