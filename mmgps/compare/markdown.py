"""Results of a comparison as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmgps.utils.text import markdown_table, printable

from .table import Comparison, MethodResult

REFERENCE = 'full'
MILLION = 1e6


def text_of(found: Comparison) -> str:
    """Format the table, the choice of rates, and the settings."""
    parts = [_scores(found), _notes(found)]
    if found.trials:
        parts += ['Rates tried, and the score on the held-out training images (the best in bold):', _rates(found)]
    parts.append('\n'.join(f'- {name}: {_plain(value)}' for name, value in found.settings.items()))
    return '\n\n'.join(parts) + '\n'


def _scores(found: Comparison) -> str:
    head = ['method', *(metric.title for metric in found.metrics), 'trained M', 'of all', 'of backbone M', 'of it']
    head += ['step / full', 'peak / full', 'rate', 'seeds']
    summaries = found.summaries()
    reference = next((summary for summary in summaries if summary.label == REFERENCE), None)
    # What a method adds to the backbone is no part of the base that shares are taken of.
    base = {key: min((row[key] for row in found.rows), default=0) for key in ('total', 'backbone_total')}
    return markdown_table(head, [_row(found, summary, reference, base) for summary in summaries])


def _row(found: Comparison, own: MethodResult, reference: MethodResult | None, base: Mapping[str, int]) -> list[str]:
    first = own.rows[0]
    return [
        own.label,
        *(own.score(metric) for metric in found.metrics),
        f'{first["trained"] / MILLION:.3f}',
        f'{first["trained"] / base["total"]:.2%}',
        f'{first["backbone_trained"] / MILLION:.3f}',
        f'{first["backbone_trained"] / base["backbone_total"]:.2%}',
        *(_ratio(cost, own, reference) for cost in ('step_s', 'peak_bytes')),
        f'{first["lr"]:g}' + _mark(found, own.label, first['lr']),
        str(len(own.rows)),
    ]


def _ratio(cost: str, own: MethodResult, reference: MethodResult | None) -> str:
    if reference is None or cost not in own.costs or cost not in reference.costs:
        return '-'
    return f'{own.costs[cost] / reference.costs[cost]:.2f}'


def _mark(found: Comparison, label: str, rate: float) -> str:
    if label in found.settings['fixed_rates']:
        return ' (given)'
    grid = found.settings['grids'][label]
    return '*' if len(grid) > 1 and rate in (min(grid), max(grid)) else ''


def _notes(found: Comparison) -> str:
    several = 'mean ± standard deviation over seeds' if len(found.settings['seeds']) > 1 else 'one seed'
    notes = [f'Scores in percent, of the last step on the {found.settings["scored_on"]}, {several}.']
    if found.costs is None:
        notes.append('Step time (median of a run, without loading) and peak memory (of selecting and training) are ')
        notes[-1] += 'those of these runs, with all that the process loads'
        notes[-1] += '; several ran at a time, so times are rough.' if found.settings['jobs'] > 1 else '.'
    else:
        notes.append('Step time and peak memory were measured apart, by tools/benchmark.py.')
    if any('*' in _mark(found, summary.label, summary.rows[0]['lr']) for summary in found.summaries()):
        notes.append('*: the best rate lies at an end of its grid, so a rate beyond it may do better.')
    return '\n'.join(notes)


def _rates(found: Comparison) -> str:
    labels = dict.fromkeys(trial['method'] for trial in found.trials)
    tried: dict[str, dict[float, float | None]] = {label: {} for label in labels}
    for trial in found.trials:
        tried[trial['method']][trial['lr']] = trial['score']
    width = max(map(len, tried.values()))
    rows = [[label, *_cells(scores), *[''] * (width - len(scores))] for label, scores in tried.items()]
    return markdown_table(['method', *(f'rate {at + 1}' for at in range(width))], rows)


def _cells(scores: Mapping[float, float | None]) -> list[str]:
    best = max((score for score in scores.values() if score is not None), default=None)
    cells = {lr: f'{lr:g}: {"-" if score is None else f"{score:.2f}"}' for lr, score in sorted(scores.items())}
    return [f'**{cell}**' if scores[lr] == best and best is not None else cell for lr, cell in cells.items()]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return '; '.join(f'{name} {_plain(part)}' for name, part in value.items()) or 'none'
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ', '.join(map(_plain, value))
    return f'{value:g}' if isinstance(value, float) else printable(str(value))
