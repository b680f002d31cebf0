"""One table for comparisons on several sets, with group means, like the paper's tables of FGVC and VTAB-1k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from mmgps.utils.atomic_file import read_json
from mmgps.utils.text import markdown_table
from mmgps.vtab_tasks import TASKS

from .metrics import METRICS

SUITES: dict[str, dict[str, tuple[str, ...]]] = {
    'fgvc': {'': ('cub', 'nabirds', 'flowers', 'dogs', 'cars')},
    'vtab': {
        group: tuple(task.name for task in TASKS if task.group == group)
        for group in ('natural', 'specialized', 'structured')
    },
}
"""Name of a suite to its groups, and of a group to the sets in it, in the order of the paper's tables."""


@dataclass(frozen=True)
class Column:
    """Comparison on one set, a column of the table.

    Args:
        name: Name of the set: the part of the config name after the first ``_``.
        scores: Mean score over seeds in percent, by the label of a method.
        shares: Trained share of the base from 0 to 1, by the label of a method.
        seeds: Number of seeds, by the label of a method.
        setting: Model and scored images, which all comparisons of a table share.
    """

    name: str
    scores: Mapping[str, float]
    shares: Mapping[str, float]
    seeds: Mapping[str, int]
    setting: str = ''


def read_column(path: str | Path, metric: str = 'top1') -> Column:
    """Read a ``table.json`` that ``tools/compare.py`` wrote.

    Raises:
        ValueError: If it is not such a file, or no run in it has the score ``metric``.
    """
    content = read_json(Path(path))
    if not isinstance(content, dict) or not {'settings', 'rows'} <= content.keys():
        raise ValueError(f'{path} is no table.json of tools/compare.py; give those in its work dirs')
    rows = [row for row in content['rows'] if row.get(metric) is not None]
    if not rows:
        known = ', '.join(metric.key for metric in METRICS)
        raise ValueError(f'no run in {path} has the score {metric!r}; the scores are {known}')
    base = min(row['total'] for row in rows)
    own: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        own.setdefault(row['method'], []).append(row)
    model, _, name = str(content['settings']['config']).removesuffix('.py').partition('_')
    return Column(
        name,
        {label: mean(row[metric] for row in found) for label, found in own.items()},
        {label: found[0]['trained'] / base for label, found in own.items()},
        {label: len(found) for label, found in own.items()},
        f'{model}, scored on the {content["settings"].get("scored_on", "validation set")}',
    )


def suite_table(columns: Sequence[Column]) -> str:
    """Format a suite in Markdown: a row for each method, a column for each set, then means.

    A mean is shown only if the method has a score on every compared set of the group. The overall mean is taken over
    sets, not over groups.

    Raises:
        ValueError: If a set is given twice, or the sets belong to different suites or models.
    """
    settings = sorted({column.setting for column in columns})
    if len(settings) > 1:
        raise ValueError(f'the comparisons are of {"; ".join(settings)}; give those of one setting for a table')
    by_name = {column.name: column for column in columns}
    if len(by_name) < len(columns):
        raise ValueError(f'a set is given twice in {", ".join(column.name for column in columns)}; give each once')
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
    note = f'Top-1 in percent, mean over seeds ({seeds} a method and set); trained: share of the base, head included.'
    return f'{markdown_table(head, rows)}\n\n{note}\n'


def _groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Find the suite that has all ``names``, and return its groups with the sets that are among them."""
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
