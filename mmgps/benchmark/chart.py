"""Step time and saved activations as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmgps.utils.atomic_file import atomic_file
from mmgps.utils.text import figure_text

from .report import MIB, Report

COLOURS = {'gps-compact': '#1b7f5c', 'gps-masked': '#b5651d', 'lora': '#7a5ea8', '': '#8a8f98'}
REFERENCE = 'bias'


def draw_chart(report: Report, path: str | Path) -> None:
    """Draw two panels of horizontal bars, step time and saved activations, with their ratios to bias tuning."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6 + 0.36 * len(report.figures)), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, 'step time, ms', {name: own.step_s * 1e3 for name, own in report.figures.items()})
    _panel(right, 'saved activations, MiB', {name: own.saved_bytes / MIB for name, own in report.figures.items()})
    left.invert_yaxis()
    title = (
        f'{figure_text(report.header["config"])}, batch of {report.header["batch_size"]}\n{report.header["machine"]}, '
    )
    figure.suptitle(f'{title}threads: {report.header["threads"]}', fontsize=10)
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=130, format=Path(path).suffix[1:] or 'png')


def _panel(axes: Any, title: str, values: Mapping[str, float]) -> None:
    bars = axes.barh(
        list(map(figure_text, values)), list(values.values()), color=[_colour(name) for name in values], height=0.7
    )
    reference = values.get(REFERENCE)
    labels = [f'{value:.0f}' + (f'  ({value / reference:.2f}x)' if reference else '') for value in values.values()]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    if reference:
        axes.axvline(reference, color='#444', linewidth=0.8, linestyle=':')
    axes.set_title(title + (f' (x of {REFERENCE})' if reference else ''), fontsize=10)
    axes.margins(x=0.25)
    axes.spines[['top', 'right']].set_visible(False)


def _colour(name: str) -> str:
    return next(colour for start, colour in COLOURS.items() if name.startswith(start))
