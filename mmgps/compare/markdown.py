"""Markdown pages: the results of one comparison, and one table for comparisons on several data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from mmgps.utils.atomic_file import read_json
from mmgps.utils.text import markdown_table, printable
from mmgps.vtab_tasks import TASKS

from .table import METRICS, Comparison, MethodResult

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
    # Shares refer to the base alone, without the parameters that a method adds.
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
        rough = '; several ran at a time, so times are rough.' if found.settings['jobs'] > 1 else '.'
        notes.append(
            'Step time (median of a run, without loading) and peak memory (of selecting and training, with everything '
            f'that the process loads) were measured in these runs{rough}'
        )
    else:
        notes.append('Step time and peak memory were measured separately, by tools/benchmark.py.')
    if any('*' in _mark(found, summary.label, summary.rows[0]['lr']) for summary in found.summaries()):
        notes.append('*: the best rate lies at an end of its grid, so a rate beyond it may score higher.')
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


SUITES: dict[str, dict[str, tuple[str, ...]]] = {
    'fgvc': {'': ('cub', 'nabirds', 'flowers', 'dogs', 'cars')},
    'vtab': {
        group: tuple(task.name for task in TASKS if task.group == group)
        for group in ('natural', 'specialized', 'structured')
    },
}
"""Suites by name, their groups by name, and the sets of a group in the order of the paper's tables."""


@dataclass(frozen=True)
class Column:
    """Comparison on one data set, a column of the suite's table.

    Args:
        name: Name of the set: the part of the config name after the first ``_``.
        scores: Mean score over seeds in percent, by the label of a method.
        shares: Trained share of the base from 0 to 1, by the label of a method.
        seeds: Number of seeds, by the label of a method.
        setting: Model and scored images; all comparisons of a table share them.
    """

    name: str
    scores: Mapping[str, float]
    shares: Mapping[str, float]
    seeds: Mapping[str, int]
    setting: str = ''


def read_column(path: str | Path, metric: str = 'top1') -> Column:
    """Read a ``table.json`` that ``tools/compare.py`` wrote.

    Raises:
        ValueError: If the file is none of these, or no run in it has the score ``metric``.
    """
    content = read_json(Path(path))
    if not isinstance(content, dict) or not {'settings', 'rows'} <= content.keys():
        raise ValueError(f'{path} is no table.json of tools/compare.py; name the files in its work dirs')
    rows = [row for row in content['rows'] if row.get(metric) is not None]
    if not rows:
        known = ', '.join(metric.key for metric in METRICS)
        raise ValueError(f'no run in {path} has the score {metric!r}; the scores are {known}')
    base = min(row['total'] for row in rows)
    own = {label: [row for row in rows if row['method'] == label] for label in (row['method'] for row in rows)}
    model, _, name = str(content['settings']['config']).removesuffix('.py').partition('_')
    return Column(
        name,
        {label: mean(row[metric] for row in found) for label, found in own.items()},
        {label: found[0]['trained'] / base for label, found in own.items()},
        {label: len(found) for label, found in own.items()},
        f'{model}, scored on the {content["settings"].get("scored_on", "validation set")}',
    )


def suite_table(columns: Sequence[Column]) -> str:
    """Format a suite like the paper's tables of FGVC and VTAB-1k: methods in rows, sets in columns, then means.

    A mean appears only if the method has a score on every compared set of the group. The overall mean is taken over
    sets, not over groups.

    Raises:
        ValueError: If a set occurs twice, or the sets belong to different suites or models.
    """
    settings = sorted({column.setting for column in columns})
    if len(settings) > 1:
        raise ValueError(f'the comparisons are of {"; ".join(settings)}; a table takes those of one setting')
    by_name = {column.name: column for column in columns}
    if len(by_name) < len(columns):
        raise ValueError(f'a set is given twice in {", ".join(column.name for column in columns)}; name each once')
    groups = _groups(list(by_name))
    ordered = [by_name[name] for names in groups.values() for name in names]
    labels = list(dict.fromkeys(label for column in columns for label in column.scores))
    named = {group: [by_name[name] for name in names] for group, names in groups.items() if group}
    head = ['method', *(column.name for column in ordered), *named, 'mean', 'trained']
    rows = [
        [label, *(_mean(label, [column]) for column in ordered), *(_mean(label, g) for g in named.values()),
         _mean(label, ordered), _share(label, ordered)]
        for label in labels
    ]  # fmt: skip
    counts = sorted({seeds for column in columns for seeds in column.seeds.values()})
    seeds = ' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    note = f'Top-1 in percent, mean over seeds ({seeds} per method and set); trained: share of the base, with the head.'
    return f'{markdown_table(head, rows)}\n\n{note}\n'


def _groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the groups of the suite that has all ``names``, reduced to these sets."""
    for groups in SUITES.values():
        if set(names) <= {name for members in groups.values() for name in members}:
            found = {group: [name for name in members if name in names] for group, members in groups.items()}
            return {group: members for group, members in found.items() if members}
    listed = '; '.join(
        f'{suite}: {", ".join(name for members in groups.values() for name in members)}'
        for suite, groups in SUITES.items()
    )
    raise ValueError(f'{", ".join(names)} are not sets of one suite; the suites are {listed}')


def _mean(label: str, columns: Sequence[Column]) -> str:
    if any(label not in column.scores for column in columns):
        return '-'
    return f'{mean(column.scores[label] for column in columns):.2f}'


def _share(label: str, columns: Sequence[Column]) -> str:
    shares = [column.shares[label] for column in columns if label in column.shares]
    return f'{mean(shares):.2%}'
