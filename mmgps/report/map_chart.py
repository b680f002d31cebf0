"""A map of where the chosen connections of a transformer sit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from mmgps.selection import Connections, Selection
from mmgps.tuning.sites import LayerPart, find_sites

from .facts import counts_of_columns
from .figure import new_figure

PANELS = {
    LayerPart.QKV: 'into query, key and value',
    LayerPart.FC1: 'into the MLP',
    LayerPart.PROJ: 'out of the attention',
    LayerPart.FC2: 'out of the MLP',
}
BINS = 192
"""Cells of a row; of a layer with more inputs, neighbours share one."""


def draw_map(backbone: nn.Module, selection: Selection) -> Any | None:
    """For each block a row, for each input a cell: how many neurons chose that input.

    Bright columns through many rows are features of the residual stream that the task reads again and again.

    Args:
        backbone: What ``selection`` was made for.
        selection: What was chosen.

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
    figure.suptitle('Where the chosen connections sit: each row a block, each cell an input of its layer', fontsize=12)
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
    """Chosen connections of each layer that plays ``part``, in the order of the network."""
    names = [site.name for site in find_sites(backbone) if site.part is part]
    chosen = [selection.connections[name] for name in names if name in selection.connections]
    return [item for item in chosen if len(item)]


def _cells(rows: list[Connections]) -> npt.NDArray[np.float64]:
    """Share of its chosen connections that each row has in each cell, in percent; NaN where it has no such input."""
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
    # a square root lets inputs that few neurons chose be seen beside those that most did
    norm = PowerNorm(0.5, 0, top)
    extent = (0, widest, len(rows) + 0.5, 0.5)
    image = axes.imshow(cells, aspect='auto', cmap='inferno', norm=norm, extent=extent, interpolation='nearest')
    columns = [int((counts_of_columns(item) > 0).sum()) for item in rows]
    axes.set_title(f'{title}: {min(columns)} to {max(columns)} of {widest} inputs chosen', fontsize=10.5, loc='left')
    axes.set_ylabel('block')
    step = -(-widest // cells.shape[1])
    axes.set_xlabel('input' if step == 1 else f'input, {step} to a cell')
    axes.set_facecolor('#dddddd')
    axes.set_yticks(range(1, len(rows) + 1), [str(n) if n == 1 or n % 2 == 0 else '' for n in range(1, len(rows) + 1)])
    return image
