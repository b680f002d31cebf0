"""Charts of a selection. Matplotlib is imported only when something is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from mmgps.selection import Connections, Selection
from mmgps.tuning.sites import LayerPart, find_sites
from mmgps.utils.text import figure_text

from .facts import LayerFacts, Overlap, SelectionFacts, counts_of_columns, in_all

STYLES = {
    'qkv': dict(color='#0072b2', label='attention: query, key, value'),
    'proj': dict(color='#56b4e9', label='attention: output'),
    'fc1': dict(color='#d55e00', label='MLP: first layer'),
    'fc2': dict(color='#e69f00', label='MLP: last layer'),
    'linear': dict(color='#5d3a9b', label='other linear layers'),
    'conv': dict(color='#009e73', label='convolutions'),
    'grouped': dict(color='#cc79a7', label='grouped convolutions'),
    'other': dict(color='#777777', label='other layers'),
}
"""Colour and label of each part. Colour-blind eyes distinguish the colours (Okabe and Ito, dark purple and grey)."""
DPI = 110
QUIET = '#b9bec6'
PANELS = {
    LayerPart.QKV: 'into query, key and value',
    LayerPart.FC1: 'into the MLP',
    LayerPart.PROJ: 'out of the attention',
    LayerPart.FC2: 'out of the MLP',
}
BINS = 192
"""Cells per row; in a layer with more inputs, neighbours share a cell."""


def new_figure(width: float, height: float) -> Any:
    """Create a figure without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained', dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Any) -> bytes:
    """Render the figure as a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=DPI)
    return content.getvalue()


def as_pixels(figure: Any) -> npt.NDArray[np.uint8]:
    """Render the figure as ``[H, W, 3]`` RGB."""
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def draw_layers(facts: SelectionFacts) -> Any:
    """Draw the concentration of the choice on few inputs, the trained share, and the gradients of chosen connections.

    Layers appear from left to right in the order of the network, with one colour for each part of a block.
    """
    figure = new_figure(12, 7.6)
    axes = figure.subplots(2, 2)
    figure.suptitle(figure_text(facts.title), fontsize=12)
    inputs = 'inputs that some neuron chose'
    _series(axes[0, 0], facts, lambda x: 100 * x.column_share, inputs, '% of the inputs of the layer')
    busiest = 'connections that start at the five most chosen inputs'
    _series(axes[0, 1], facts, lambda x: 100 * x.busiest, busiest, '% of the chosen connections')
    _series(axes[1, 0], facts, lambda x: 100 * x.share, 'trained connections', '% of the weight')
    _gradients(axes[1, 1], facts)
    _finish(figure, axes[0, 0])
    return figure


def _series(axes: Any, facts: SelectionFacts, value: Callable[[LayerFacts], float], title: str, unit: str) -> None:
    for part in dict.fromkeys(layer.part for layer in facts.layers):
        at = [number for number, layer in enumerate(facts.layers, 1) if layer.part == part]
        style = STYLES.get(part, dict(color=QUIET, label=part))
        axes.plot(at, [value(facts.layers[n - 1]) for n in at], linewidth=1, marker='o', markersize=5, **style)
    axes.set_title(title, fontsize=10.5, loc='left')
    axes.set_ylim(0, 1.08 * max(map(value, facts.layers)))
    _tidy(axes, unit)


def _gradients(axes: Any, facts: SelectionFacts) -> None:
    """Plot medians and the bands of 90 % of the values."""
    axes.set_title('gradients that decided the choice', fontsize=10.5, loc='left')
    known = [(number, layer.gradients) for number, layer in enumerate(facts.layers, 1) if layer.gradients]
    if not known:
        reason = 'unknown: files do not hold them,\nand not every method uses them'
        axes.text(0.5, 0.5, reason, ha='center', color='#555')
        axes.set_axis_off()
        return
    for kind, colour, label in (('of_all', QUIET, 'all connections'), ('of_chosen', '#111111', 'chosen ones')):
        spread = [getattr(quantiles, kind) for _, quantiles in known]
        at = [number for number, _ in known]
        tiny = min((value for row in spread for value in row if value > 0), default=1e-12)
        low, middle, high = ([max(row[place], tiny) for row in spread] for place in (0, 2, 4))
        axes.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(at, middle, color=colour, label=f'{label}: median, and the band of 90 %')
    axes.set_yscale('log')
    axes.legend(fontsize=8, frameon=False)
    _tidy(axes, 'magnitude')


def _finish(figure: Any, axes: Any) -> None:
    """Put the legend of ``axes`` below the figure."""
    figure.legend(*axes.get_legend_handles_labels(), loc='outside lower center', ncols=5, frameon=False)


def _tidy(axes: Any, unit: str) -> None:
    """Label axes over the layers of a network, and reduce their lines."""
    axes.set_ylabel(unit)
    axes.set_xlabel('layer, from input to head')
    axes.grid(axis='y', color='#e6e6e6', linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)


def draw_map(backbone: nn.Module, selection: Selection) -> Any | None:
    """Draw the number of neurons that chose each input: a row for each block, a cell for each input.

    Bright columns across many rows are features of the residual stream that the task reads repeatedly.

    Returns:
        The figure; None for a network without attention and MLPs, or without chosen connections in them.
    """
    found = {part: _rows(backbone, selection, part) for part in PANELS}
    drawn = {part: rows for part, rows in found.items() if rows}
    if not drawn:
        return None
    lines, columns = -(-len(drawn) // 2), min(2, len(drawn))
    figure = new_figure(12, 1.2 + lines * (0.7 + 0.17 * max(map(len, drawn.values()))))
    axes = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    figure.suptitle('Chosen connections: one row for each block, one cell for each input of its layer', fontsize=12)
    shares = {part: _cells(rows) for part, rows in drawn.items()}
    top = max(float(np.nanmax(cells)) for cells in shares.values())
    for panel in axes[len(drawn) :]:
        panel.set_axis_off()
    for panel, (part, rows) in zip(axes, drawn.items(), strict=False):
        image = _panel(panel, PANELS[part], rows, shares[part], top)
    bar = figure.colorbar(image, ax=axes.tolist(), shrink=0.8, pad=0.01)
    bar.set_label('% of the chosen connections of the layer')
    return figure


def _rows(backbone: nn.Module, selection: Selection, part: LayerPart) -> list[Connections]:
    """Return the chosen connections of each layer with the role ``part``, in the order of the network."""
    names = [site.name for site in find_sites(backbone) if site.part is part]
    chosen = [selection.connections[name] for name in names if name in selection.connections]
    return [item for item in chosen if len(item)]


def _cells(rows: list[Connections]) -> npt.NDArray[np.float64]:
    """Return the share of each row's chosen connections by cell, in percent; NaN beyond the inputs of a row."""
    widest = max(item.fan_in for item in rows)
    step = -(-widest // BINS)
    cells = np.full((len(rows), -(-widest // step)), np.nan)
    for row, item in zip(cells, rows, strict=True):
        counts = counts_of_columns(item).numpy()
        padded = np.pad(counts, (0, -len(counts) % step)).reshape(-1, step).sum(1)
        row[: len(padded)] = 100 * padded / len(item)
    return cells


def _panel(axes: Any, title: str, rows: list[Connections], cells: npt.NDArray[np.float64], top: float) -> Any:
    from matplotlib.colors import PowerNorm

    widest = max(item.fan_in for item in rows)
    # The square root keeps inputs that few neurons chose visible beside those that most chose.
    norm = PowerNorm(0.5, 0, top)
    extent = (0, widest, len(rows) + 0.5, 0.5)
    image = axes.imshow(cells, aspect='auto', cmap='inferno', norm=norm, extent=extent, interpolation='nearest')
    columns = [int((counts_of_columns(item) > 0).sum()) for item in rows]
    axes.set_title(f'{title}: {min(columns)} to {max(columns)} of {widest} inputs chosen', fontsize=10.5, loc='left')
    axes.set_ylabel('block')
    step = -(-widest // cells.shape[1])
    axes.set_xlabel('input' if step == 1 else f'input, {step} per cell')
    axes.set_facecolor('#dddddd')
    axes.set_yticks(range(1, len(rows) + 1), [str(n) if n == 1 or n % 2 == 0 else '' for n in range(1, len(rows) + 1)])
    return image


def draw_overlap(parts: list[Overlap], kinds: Mapping[str, str], first: str, second: str) -> Any:
    """Draw the shared connections of each layer, beside the expected share of random choices.

    Args:
        parts: Overlap of each layer, in the order of the network.
        kinds: Role of the layer by the name of the weight, as in :class:`LayerFacts`.
        first: Name of the first task.
        second: Name of the second task.
    """
    figure = new_figure(12, 4.2)
    axes = figure.subplots()
    everything = in_all(parts)
    at = range(1, len(parts) + 1)
    for kind in dict.fromkeys(kinds.values()):
        mine = {n: 100 * part.share for n, part in zip(at, parts, strict=True) if kinds[part.name] == kind}
        axes.bar(list(mine), list(mine.values()), **STYLES[kind])
    chance = [100 * part.chance_share for part in parts]
    axes.step(at, chance, where='mid', color='#111111', label='two random choices')
    axes.set_title(
        f'"{figure_text(first)}" or "{figure_text(second)}": both chose {everything.share:.1%} of the connections that '
        f'either chose ({everything.chance_share:.1%} by chance)',
        fontsize=12,
        loc='left',
    )
    _finish(figure, axes)
    _tidy(axes, '% of the chosen connections')
    axes.margins(x=0.01)
    return figure
