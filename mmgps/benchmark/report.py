"""Benchmark results as Markdown, JSON and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from mmgps.utils.atomic_file import atomic_file, write_json
from mmgps.utils.text import figure_text, markdown_table

from .measurements import Bar, Measurements, SelectionCost

MIB = 2**20
STEP_REFERENCES = ('bias', 'full', 'lora-r8')
SAVED_REFERENCES = ('bias', 'lora-r8')
COLOURS = {'gps-compact': '#1b7f5c', 'gps-masked': '#b5651d', 'lora': '#7a5ea8', '': '#8a8f98'}
REFERENCE = 'bias'


@dataclass(frozen=True)
class Report:
    """Results of a benchmark.

    Args:
        header: Machine, config, commit, torch, threads, seed and more, as JSON values.
        measurements: Measurements by method name.
        times: Seconds of every step by method name.
        bars: Limits to compare the measurements with.
        left_out: A sentence for each method that could not be measured.
        selection: Cost of the selection, if it was measured.
    """

    header: Mapping[str, Any]
    measurements: Mapping[str, Measurements]
    times: Mapping[str, Sequence[float]]
    bars: Sequence[Bar] = ()
    left_out: Sequence[str] = ()
    selection: SelectionCost | None = None

    def write_json(self, path: str | Path) -> None:
        """Write a JSON object with the header entries and the measurements under ``methods``."""
        content = {**self.header, 'methods': {name: asdict(found) for name, found in self.measurements.items()}}
        if self.selection:
            content['selection_cost'] = asdict(self.selection)
        write_json(Path(path), content)

    def text(self) -> str:
        """Format all results in Markdown."""
        header = '; '.join(f'{key}: {value}' for key, value in self.header.items())
        parts = [header, self._table(), *self.left_out]
        if self.bars:
            parts.append(self._bars())
        if self.selection:
            parts.append(_selection_text(self.selection))
        return '\n\n'.join(parts)

    def _table(self) -> str:
        head = ['method', 'trained', 'step ms', 'spread', *(f'step / {name}' for name in STEP_REFERENCES)]
        head += ['saved MiB', *(f'saved / {name}' for name in SAVED_REFERENCES), 'peak MiB', 'optimizer MiB']
        return markdown_table([*head, 'reduced MiB'], [self._row(name) for name in self.measurements])

    def _row(self, name: str) -> list[str]:
        own = self.measurements[name]
        sizes = [own.peak_bytes, own.optimizer_bytes, own.reduced_bytes]
        return [
            name,
            f'{own.trained:,}',
            f'{own.step_s * 1e3:.1f}',
            spread(self.times[name]),
            *(self._ratio('step_s', name, other) for other in STEP_REFERENCES),
            f'{own.saved_bytes / MIB:.1f}',
            *(self._ratio('saved_bytes', name, other) for other in SAVED_REFERENCES),
            *('-' if size is None else f'{size / MIB:.1f}' for size in sizes),
        ]

    def _ratio(self, measurement: str, name: str, other: str) -> str:
        ratio = Bar(measurement, name, other, 0, 0).ratio(self.measurements)
        return '-' if ratio is None else f'{ratio:.3f}'

    def _bars(self) -> str:
        rows = []
        for bar in self.bars:
            label = f'{bar.measurement.removesuffix("_s").replace("_", " ")}: {bar.method} / {bar.reference}'
            found = self._ratio(bar.measurement, bar.method, bar.reference)
            verdict = bar.verdict(bar.ratio(self.measurements))
            rows.append([label, found, f'{bar.limit:.2f}', f'{bar.aim:.2f}', verdict])
        return markdown_table(['ratio', 'measured', 'bar', 'aim', ''], rows)


def _selection_text(cost: SelectionCost) -> str:
    verdict = 'meets the bar' if cost.ratio <= cost.LIMIT else f'misses by {cost.ratio - cost.LIMIT:.3f}'
    choices = ', '.join(f'{seconds * 1e3:.0f} ms for K={k}' for k, seconds in cost.choice_s.items())
    return (
        f'selection pass over {cost.batches} batches: {cost.pass_s:.2f} s, plain forward and backward '
        f'{cost.plain_s:.2f} s, ratio {cost.ratio:.3f} (bar {cost.LIMIT}: {verdict}); choosing: {choices}'
    )


def spread(seconds: Sequence[float]) -> str:
    """Format the interquartile range as a share of the median."""
    if len(seconds) < 2:
        return '-'
    low, middle, high = quantiles(seconds, n=4, method='inclusive')
    return f'{(high - low) / middle:.0%}'


def draw_chart(report: Report, path: str | Path) -> None:
    """Draw two panels of horizontal bars, step time and saved activations, with their ratios to bias tuning."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6 + 0.36 * len(report.measurements)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, 'step time, ms', {name: own.step_s * 1e3 for name, own in report.measurements.items()})
    _panel(right, 'saved activations, MiB', {name: own.saved_bytes / MIB for name, own in report.measurements.items()})
    left.invert_yaxis()
    head = report.header
    title = f'{figure_text(head["config"])}, batch of {head["batch_size"]}'
    figure.suptitle(f'{title}\n{head["machine"]}, threads: {head["threads"]}', fontsize=10)
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=130, format=Path(path).suffix[1:] or 'png')


def _panel(axes: Any, title: str, values: Mapping[str, float]) -> None:
    colours = [next(colour for start, colour in COLOURS.items() if name.startswith(start)) for name in values]
    bars = axes.barh(list(map(figure_text, values)), list(values.values()), color=colours, height=0.7)
    reference = values.get(REFERENCE)
    labels = [f'{value:.0f}' + (f'  ({value / reference:.2f}x)' if reference else '') for value in values.values()]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    if reference:
        axes.axvline(reference, color='#444', linewidth=0.8, linestyle=':')
    axes.set_title(title + (f' (x of {REFERENCE})' if reference else ''), fontsize=10)
    axes.margins(x=0.25)
    axes.spines[['top', 'right']].set_visible(False)
