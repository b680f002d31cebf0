"""Chart of scores over the number of trained parameters and over peak memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from mmgps.utils.atomic_file import atomic_file
from mmgps.utils.text import figure_text

from .table import Comparison, MethodResult, Metric

FIXED = {'gps': ('#1b7f5c', '*'), 'full': ('#222222', 's'), 'linear': ('#8a8f98', 'o'), 'bias': ('#b5651d', 'o')}
COLOURS = ('#1f77b4', '#d62728', '#9467bd', '#e377c2', '#17becf', '#8c564b', '#bcbd22', '#ff7f0e', '#3b3bb3', '#c51b7d')
MIB = 2**20
DISTANCES = (10, 22, 36, 52, 70)
DIRECTIONS = 12
HALF_POINT = 8
"""Half the width of a point in pixels."""
LED = 20
"""Labels farther away than this get a line to their point."""


@dataclass(frozen=True)
class Point:
    """One method in the chart.

    Args:
        label: Label of the method.
        score: Mean score over seeds.
        bar: Standard deviation over seeds; None for a single seed.
        colour: Colour in both panels.
        marker: Marker in both panels.
        trained: Number of trained parameters in the backbone.
        memory: Peak memory in MiB; None if not measured.
    """

    label: str
    score: float
    bar: float | None
    colour: str
    marker: str
    trained: int
    memory: float | None

    @classmethod
    def of(cls, own: MethodResult, metric: Metric, colour: str) -> Point:
        """Make the point of a method, in ``colour`` unless the method has a fixed one."""
        colour, marker = FIXED.get(own.label.partition(':')[0], (colour, 'o'))
        memory = own.costs['peak_bytes'] / MIB if 'peak_bytes' in own.costs else None
        score, trained = mean(own.scores(metric)), own.rows[0]['backbone_trained']
        return cls(own.label, score, own.deviation(metric), colour, marker, trained, memory)


def draw_comparison(found: Comparison, path: str | Path) -> None:
    """Draw two panels with one point per method; bars show the standard deviation over seeds.

    A dashed line shows the score of a method that trains nothing of the backbone, as the axis is logarithmic.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = found.metrics[0]
    points = points_of(found, metric)
    figure = Figure(figsize=(13, 5.6), dpi=130, layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    panels: dict[Any, list[tuple[float, Point]]] = {
        left: [(point.trained, point) for point in points if point.trained],
        right: [(point.memory, point) for point in points if point.memory],
    }
    _logarithmic(left)
    _lines(left, [point for point in points if not point.trained])
    left.set(xlabel='trained parameters of the backbone, without the head (log scale)', ylabel=f'{metric.title}, %')
    right.set_xlabel('peak memory of selecting and training, MiB')
    figure.suptitle(_title(found, metric))
    for axes, placed in panels.items():
        _panel(axes, placed)
    figure.draw_without_rendering()
    figure.set_layout_engine('none')  # labels get positions in pixels, so nothing may move from here on
    for axes, placed in panels.items():
        _label_points(axes, placed)
    with atomic_file(path) as partial:
        figure.savefig(partial, format='png')


def points_of(found: Comparison, metric: Metric) -> list[Point]:
    """Make a point for each method that has a score."""
    summaries = [summary for summary in found.summaries() if summary.scores(metric)]
    others = [s.label for s in summaries if s.label.partition(':')[0] not in FIXED]
    colours = {label: COLOURS[at % len(COLOURS)] for at, label in enumerate(others)}
    return [Point.of(summary, metric, colours.get(summary.label, '')) for summary in summaries]


def _title(found: Comparison, metric: Metric) -> str:
    seeds = len(found.settings['seeds'])
    over = f'mean of {seeds} seeds, bars: standard deviation' if seeds > 1 else 'one seed'
    place = found.settings['scored_on']
    return f'{figure_text(found.settings["config"])}: {metric.title} on the {place} ({over}). Better: up and left'


def _panel(axes: Any, points: Sequence[tuple[float, Point]]) -> None:
    for x, point in points:
        size = 13 if point.marker == '*' else 7
        style = dict(color=point.colour, marker=point.marker, markersize=size, capsize=3, elinewidth=0.8)
        axes.errorbar(x, point.score, point.bar, **style)
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
    """Format a number in a few characters, such as 30k."""
    for unit, sign in ((1e6, 'M'), (1e3, 'k')):
        if value >= unit:
            return f'{value / unit:g}{sign}'
    return f'{value:g}'


def _label_points(axes: Any, points: Sequence[tuple[float, Point]]) -> None:
    """Write each label near its point, where it covers other points and labels least.

    Args:
        axes: Drawn axes, whose positions in pixels are known.
        points: The points with their x.
    """
    taken = [*map(_extent, axes.texts), *(_box_of(axes, x, point.score, point.bar or 0) for x, point in points)]
    for x, point in points:
        tried = []
        for order, place in enumerate(_offsets()):
            text = _write(axes, x, point, place)
            box = _extent(text)
            text.remove()
            area = float(box.width * box.height)
            outside = 0.0 if _shared(box, axes.bbox) == area else area
            tried.append((sum(_shared(box, other) for other in taken) + outside, order, place, box))
            if not tried[-1][0]:
                break
        _, _, place, box = min(tried, key=lambda one: one[:2])
        _write(axes, x, point, place)
        taken.append(box)


def _box_of(axes: Any, x: float, y: float, bar: float) -> Any:
    """Return the bounding box of a point with its bar."""
    from matplotlib.transforms import Bbox

    (left, low), (_, high) = (axes.transData.transform((x, y + sign * bar)) for sign in (-1, 1))
    height = max(high - low, 2 * HALF_POINT)
    return Bbox.from_bounds(left - HALF_POINT, (low + high - height) / 2, 2 * HALF_POINT, height)


def _extent(text: Any) -> Any:
    """Return the bounding box of a label without the line to its point."""
    from matplotlib.text import Text

    text.update_positions(text.figure.canvas.get_renderer())
    return Text.get_window_extent(text)


def _offsets() -> Iterator[tuple[float, float]]:
    """Yield offsets in points: near before far, right before left."""
    angles = sorted((math.tau * step / DIRECTIONS for step in range(DIRECTIONS)), key=lambda a: -math.cos(a - 0.3))
    for distance in DISTANCES:
        yield from ((distance * math.cos(angle), distance * math.sin(angle)) for angle in angles)


def _write(axes: Any, x: float, point: Point, place: tuple[float, float]) -> Any:
    side = 'left' if place[0] > 1 else 'right' if place[0] < -1 else 'center'
    line = dict(arrowstyle='-', color=point.colour, linewidth=0.6, shrinkA=0, shrinkB=3)
    led = line if math.hypot(*place) > LED else None
    options = dict(textcoords='offset points', ha=side, va='center', fontsize=9, color=point.colour, arrowprops=led)
    return axes.annotate(figure_text(point.label), (x, point.score), place, **options)


def _shared(one: Any, other: Any) -> float:
    """Return the area of the intersection of two boxes."""
    from matplotlib.transforms import Bbox

    box = Bbox.intersection(one, other)
    return 0.0 if box is None else float(box.width * box.height)
