"""Scores against trained numbers and against memory, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from mmgps.utils.atomic_file import write_atomically
from mmgps.utils.text import figure_text

from .metrics import Metric
from .places import label_points
from .table import Comparison, Summary

FIXED = {'gps': ('#1b7f5c', '*'), 'full': ('#222222', 's'), 'linear': ('#8a8f98', 'o'), 'bias': ('#b5651d', 'o')}
COLOURS = ('#1f77b4', '#d62728', '#9467bd', '#e377c2', '#17becf', '#8c564b', '#bcbd22', '#ff7f0e', '#3b3bb3', '#c51b7d')
MIB = 2**20


@dataclass(frozen=True)
class Point:
    """What is drawn of a method.

    Args:
        label: Of the method.
        score: Mean over seeds.
        bar: Deviation over seeds; None for a single one.
        colour: In both panels.
        marker: In both panels.
        trained: Numbers of the backbone.
        memory: In MiB; None if it was not measured.
    """

    label: str
    score: float
    bar: float | None
    colour: str
    marker: str
    trained: int
    memory: float | None

    @classmethod
    def of(cls, own: Summary, metric: Metric, colour: str) -> Point:
        """The point of a summary; ``colour`` where the method has none of its own."""
        colour, marker = FIXED.get(own.label.partition(':')[0], (colour, 'o'))
        memory = own.costs['peak_bytes'] / MIB if 'peak_bytes' in own.costs else None
        scores = own.scores(metric)
        return cls(
            own.label, mean(scores), own.deviation(metric), colour, marker, own.rows[0]['backbone_trained'], memory
        )


def draw_comparison(found: Comparison, path: str | Path) -> None:
    """Draw two panels of points, one for each method, with the deviation over seeds as a bar.

    A method that trains nothing of the backbone has no place on a logarithmic axis; its score is a dashed line there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = found.metrics[0]
    points = points_of(found, metric)
    figure = Figure(figsize=(13, 5.6), dpi=130, layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    trained = {point.label: point.trained for point in points if point.trained}
    memory = {point.label: point.memory for point in points if point.memory}
    _logarithmic(left)
    _lines(left, [point for point in points if not point.trained])
    left.set(xlabel='trained numbers of the backbone, without the head (log scale)', ylabel=f'{metric.title}, %')
    right.set_xlabel('peak memory of selecting and training, MiB')
    figure.suptitle(_title(found, metric))
    for axes, values in ((left, trained), (right, memory)):
        _panel(axes, [point for point in points if point.label in values], values)
    figure.draw_without_rendering()
    figure.set_layout_engine('none')  # labels are placed in pixels, so nothing may shift any more
    for axes, values in ((left, trained), (right, memory)):
        label_points(axes, [(p.label, values[p.label], p.score, p.bar, p.colour) for p in points if p.label in values])
    content = io.BytesIO()
    figure.savefig(content)
    write_atomically(path, content.getvalue())


def points_of(found: Comparison, metric: Metric) -> list[Point]:
    """A point for each method that has a score."""
    summaries = [summary for summary in found.summaries() if summary.scores(metric)]
    others = [s.label for s in summaries if s.label.partition(':')[0] not in FIXED]
    colours = {label: COLOURS[at % len(COLOURS)] for at, label in enumerate(others)}
    return [Point.of(summary, metric, colours.get(summary.label, '')) for summary in summaries]


def _title(found: Comparison, metric: Metric) -> str:
    seeds = len(found.settings['seeds'])
    over = f'mean of {seeds} seeds, bars: standard deviation' if seeds > 1 else 'one seed'
    place = found.settings['scored_on']
    return f'{figure_text(found.settings["config"])}: {metric.title} on the {place} ({over}). Better: up and left'


def _panel(axes: Any, points: Sequence[Point], values: Mapping[str, float]) -> None:
    for point in points:
        size = 13 if point.marker == '*' else 7
        style = dict(color=point.colour, marker=point.marker, markersize=size, capsize=3, elinewidth=0.8)
        axes.errorbar(values[point.label], point.score, point.bar, **style)
    axes.grid(alpha=0.25)
    axes.margins(x=0.2, y=0.15)
    axes.spines[['top', 'right']].set_visible(False)


def _logarithmic(axes: Any) -> None:
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.xaxis.set_minor_formatter(lambda value, _: _short(value) if f'{value:e}'[0] == '3' else '')


def _lines(axes: Any, points: Sequence[Point]) -> None:
    for point in points:
        axes.axhline(point.score, color=point.colour, linestyle='--', linewidth=1)
        where = dict(xycoords=axes.get_yaxis_transform(), textcoords='offset points', ha='right', fontsize=9)
        text = f'{figure_text(point.label)} (backbone frozen)'
        axes.annotate(text, (1, point.score), (0, 3), color=point.colour, **where)


def _short(value: float) -> str:
    """A number of a few signs, such as 30k."""
    for unit, sign in ((1e6, 'M'), (1e3, 'k')):
        if value >= unit:
            return f'{value / unit:g}{sign}'
    return f'{value:g}'
