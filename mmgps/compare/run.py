"""Run a comparison: choose learning rates on training images, then train with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmgps.utils.atomic_file import write_atomically, write_json

from .chart import draw_comparison
from .markdown import text_of
from .processes import RunFailedError, locked, run_all, say
from .runs import Run, Settings
from .table import Comparison, collect, leading


def run_comparison(settings: Settings) -> Comparison:
    """Train the runs without a result in the work dir, and write ``table.md``, ``table.json`` and ``table.png``.

    Each final run updates these files. Trials see training images only.

    Raises:
        RunFailedError: If a run failed; raised after all others have ended, with tables that lack this run.
        ValueError: If the config or the settings allow no comparison.
    """
    _check(settings)
    with locked(settings.work_dir) as lock:
        trials = {
            c.label: [settings.trial(c, lr) for lr in settings.grids.get(c.label, ())] for c in settings.candidates
        }
        every = [run for runs in trials.values() for run in runs]
        failures = run_all(every, settings.jobs, settings.threads, lock, Run.discard_checkpoints)
        complete = {label: runs for label, runs in trials.items() if runs and all(run.result() for run in runs)}
        lost = [label for label, runs in complete.items() if all('diverged' in (run.result() or {}) for run in runs)]
        failures += [_diverged(label, complete.pop(label)) for label in lost]
        rates = {**settings.fixed, **{label: best_rate(runs) for label, runs in complete.items()}}
        finals = [
            settings.final(c, rates[c.label], seed)
            for seed in settings.seeds
            for c in settings.candidates
            if c.label in rates
        ]

        def write(_: Run | None = None) -> Comparison:
            return _write(settings, trials, finals)

        failures += run_all(finals, settings.jobs, settings.threads, lock, write)
        comparison = write()
    if failures:
        listed = '\n'.join(failures)
        raise RunFailedError(f'{len(failures)} runs failed; the same command tries them again:\n{listed}')
    return comparison


def best_rate(trials: Sequence[Run]) -> float:
    """Return the rate with the highest score on the held-out images; the lowest one on a tie."""
    results = {run.lr: run.result() for run in trials}
    metric = leading(found['metrics'] for found in results.values() if found)
    scores = {lr: metric.of(found['metrics']) for lr, found in sorted(results.items()) if found}
    best = max(scores, key=lambda lr: float('-inf') if scores[lr] is None else float(scores[lr] or 0))
    listed = ', '.join(f'{lr:g}: {score}' for lr, score in scores.items())
    say(f'{trials[0].candidate.label}: {metric.title} on held-out training images by rate: {listed}; best: {best:g}')
    return best


def _diverged(label: str, trials: Sequence[Run]) -> str:
    rates = ', '.join(f'{run.lr:g}' for run in trials)
    return f'{label}: training diverged at each of the rates {rates}; give lower ones with --lrs {label}=...'


def _write(settings: Settings, trials: Mapping[str, Sequence[Run]], finals: Sequence[Run]) -> Comparison:
    found = collect(settings, trials, finals)
    write_json(settings.work_dir / 'table.json', found.content())
    write_atomically(settings.work_dir / 'table.md', text_of(found).encode())
    if found.rows:
        draw_comparison(found, settings.work_dir / 'table.png')
    return found


def _check(settings: Settings) -> None:
    labels = [candidate.label for candidate in settings.candidates]
    if len(set(labels)) < len(labels):
        raise ValueError(f'a method is named twice in {", ".join(labels)}; name each once')
    if len(set(settings.seeds)) < len(settings.seeds):
        raise ValueError(f'a seed is named twice in {settings.seeds}; name each once')
    missing = [key for key in ('val_dataloader', 'val_evaluator', 'val_cfg') if settings.cfg.get(key) is None]
    if missing:
        raise ValueError(f'the config has no {" and no ".join(missing)}; a comparison needs a validation set')
    if settings.jobs < 1 or settings.threads < 1:
        raise ValueError(f'jobs={settings.jobs} and threads={settings.threads}: expected 1 or more of each')
