"""Scores against trained numbers and against memory, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from .metrics import Metric
from .table import Comparison, Summary

COLOURS = {'gps': '#1b7f5c', 'full': '#333333', 'linear': '#8a8f98', 'bias': '#b5651d'}
OTHER = '#7a5ea8'
MIB = 2**20
MILLION = 1e6
#: Where a label may stand beside its point, in points, the best place first.
PLACES = [(7, 4), (7, -11), (-7, 4), (-7, -11), (0, 11), (0, -18), (7, 16), (7, -23), (-7, 16), (-7, -23)]


def draw_comparison(found: Comparison, path: str | Path) -> None:
    """Draw two panels of points, one for each method, with the deviation over seeds as a bar."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = found.metrics[0]
    summaries = [summary for summary in found.summaries() if summary.scores(metric)]
    figure = Figure(figsize=(12, 5.2), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    trained = {summary.label: summary.rows[0]['trained'] / MILLION for summary in summaries}
    memory = {s.label: s.costs['peak_bytes'] / MIB for s in summaries if 'peak_bytes' in s.costs}
    left.set_xscale('log')
    _panel(left, summaries, metric, trained)
    _panel(right, summaries, metric, memory)
    left.set_xlabel('trained numbers with the head, millions (log scale)')
    left.set_ylabel(f'{metric.title}, %')
    right.set_xlabel('peak memory of training, MiB')
    seeds = len(found.settings['seeds'])
    over = f'mean of {seeds} seeds, bars: standard deviation' if seeds > 1 else 'one seed'
    figure.suptitle(f'{found.settings["config"]}: {metric.title} on the validation set ({over}). Better: up and left')
    figure.draw_without_rendering()
    for axes, values in ((left, trained), (right, memory)):
        _label(axes, [(s, values[s.label], mean(s.scores(metric))) for s in summaries if s.label in values])
    figure.savefig(path, dpi=130)


def _panel(axes: Any, summaries: Sequence[Summary], metric: Metric, values: Mapping[str, float]) -> None:
    for summary in summaries:
        if summary.label in values:
            score, bar = mean(summary.scores(metric)), summary.deviation(metric)
            colour = _colour(summary.label)
            axes.errorbar(values[summary.label], score, bar, color=colour, marker='o', capsize=3, elinewidth=1)
    axes.grid(alpha=0.25, which='both')
    axes.margins(x=0.2, y=0.15)
    axes.spines[['top', 'right']].set_visible(False)


def _label(axes: Any, points: Sequence[tuple[Summary, float, float]]) -> None:
    """Write each label at the first place beside its point where it covers no other label and no point."""
    from matplotlib.transforms import Bbox

    spots = [axes.transData.transform((x, y)) for _, x, y in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in spots]
    for (summary, x, y), own in zip(points, list(taken), strict=True):
        others = [box for box in taken if box is not own]
        for place in PLACES:
            text = _write(axes, summary.label, (x, y), place)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in others) or place == PLACES[-1]:
                taken.append(box)
                break
            text.remove()


def _write(axes: Any, label: str, point: tuple[float, float], place: tuple[int, int]) -> Any:
    side = 'left' if place[0] > 0 else 'right' if place[0] < 0 else 'center'
    options = dict(textcoords='offset points', ha=side, fontsize=9, color=_colour(label))
    return axes.annotate(label, point, place, **options)


def _colour(label: str) -> str:
    return COLOURS.get(label.partition(':')[0], OTHER)
