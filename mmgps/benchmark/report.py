"""The results as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from mmgps.utils.atomic_file import write_atomically
from mmgps.utils.text import markdown_table

from .bars import Bar
from .figures import Figures, SelectionCost

MIB = 2**20
STEP_REFERENCES = ('bias', 'full', 'lora-r8')
SAVED_REFERENCES = ('bias', 'lora-r8')


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Args:
        header: Machine, config, commit, torch, threads, seed and more, as JSON values.
        figures: Name of a method to its figures.
        times: Name of a method to the seconds of all its steps.
        bars: What the figures are held against.
        left_out: A sentence for each method that could not be measured.
        selection: What selecting cost, if that was measured.
    """

    header: Mapping[str, Any]
    figures: Mapping[str, Figures]
    times: Mapping[str, Sequence[float]]
    bars: Sequence[Bar] = ()
    left_out: Sequence[str] = field(default=())
    selection: SelectionCost | None = None

    def write_json(self, path: str | Path) -> None:
        """Write the figures under ``methods``, and the header beside them."""
        content = {**self.header, 'methods': {name: asdict(found) for name, found in self.figures.items()}}
        if self.selection:
            content['selection_cost'] = asdict(self.selection)
        write_atomically(path, (json.dumps(content, indent=2) + '\n').encode())

    def text(self) -> str:
        """All of it, in Markdown."""
        parts = ['; '.join(f'{key}: {value}' for key, value in self.header.items()), self._table()]
        parts += [*self.left_out]
        if self.bars:
            parts.append(self._bars())
        if self.selection:
            parts.append(_selection_text(self.selection))
        return '\n\n'.join(parts)

    def _table(self) -> str:
        head = ['method', 'trained', 'step ms', 'spread', *(f'step / {name}' for name in STEP_REFERENCES)]
        head += ['saved MiB', *(f'saved / {name}' for name in SAVED_REFERENCES), 'peak MiB', 'optimizer MiB']
        return markdown_table([*head, 'reduced MiB'], [self._row(name) for name in self.figures])

    def _row(self, name: str) -> list[str]:
        own = self.figures[name]
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

    def _ratio(self, figure: str, name: str, other: str) -> str:
        ratio = Bar(figure, name, other, 0, 0).ratio(self.figures)
        return '-' if ratio is None else f'{ratio:.3f}'

    def _bars(self) -> str:
        rows = []
        for bar in self.bars:
            ratio = bar.ratio(self.figures)
            found = '-' if ratio is None else f'{ratio:.3f}'
            label = f'{bar.figure.removesuffix("_s").replace("_", " ")}: {bar.method} / {bar.reference}'
            rows.append([label, found, f'{bar.limit:.2f}', f'{bar.aim:.2f}', bar.verdict(ratio)])
        return markdown_table(['ratio', 'measured', 'bar', 'aim', ''], rows)


def _selection_text(cost: SelectionCost) -> str:
    verdict = 'meets the bar' if cost.ratio <= cost.LIMIT else f'misses by {cost.ratio - cost.LIMIT:.3f}'
    choices = ', '.join(f'{seconds * 1e3:.0f} ms for K={k}' for k, seconds in cost.choice_s.items())
    return (
        f'selection pass over {cost.batches} batches: {cost.pass_s:.2f} s, plain forward and backward '
        f'{cost.plain_s:.2f} s, ratio {cost.ratio:.3f} (bar {cost.LIMIT}: {verdict}); choosing: {choices}'
    )


def spread(seconds: Sequence[float]) -> str:
    """The interquartile range as a share of the median."""
    if len(seconds) < 2:
        return '-'
    low, middle, high = quantiles(seconds, n=4, method='inclusive')
    return f'{(high - low) / middle:.0%}'
