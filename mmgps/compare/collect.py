"""From the results of runs to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .metrics import METRICS, Metric, leading, present
from .runs import Run
from .settings import Settings
from .table import Comparison

KEPT = ('trained', 'total', 'backbone_trained', 'backbone_total', 'step_s', 'peak_bytes', 'iterations')
CIRCUMSTANCES = ('machine', 'device', 'threads', 'commit', 'python', 'torch', 'mmengine', 'mmcv', 'mmseg', 'mmpretrain')


def collect(settings: Settings, trials: Mapping[str, Sequence[Run]], finals: Sequence[Run]) -> Comparison:
    """The results that are there.

    Args:
        settings: Of the comparison.
        trials: Labels to their trials.
        finals: The runs that count.
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
        [_trial(run, found, chosen_by) for run, found in tried],
        present(found['metrics'] for _, found in done),
        settings.costs,
    )


def _trial(run: Run, found: Mapping[str, Any], metric: Metric | None) -> dict[str, Any]:
    return dict(method=run.candidate.label, lr=run.lr, score=metric.of(found['metrics']) if metric else None)


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
    """What a reader needs to know, without paths or the name of a host."""
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
