"""A picture of what was chosen, along the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmgps.utils.text import figure_text

from .facts import LayerFacts, SelectionFacts
from .figure import COLOURS, LABELS, new_figure

QUIET = '#b9bec6'


def draw_layers(facts: SelectionFacts) -> Any:
    """How far the choice gathers on few inputs, how much is trained, and which gradients the chosen have.

    Layers stand from left to right in the order of the network, one colour for each part of a block.
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
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=5, frameon=False)
    return figure


def _series(axes: Any, facts: SelectionFacts, value: Callable[[LayerFacts], float], title: str, unit: str) -> None:
    for part in dict.fromkeys(layer.part for layer in facts.layers):
        at = [number for number, layer in enumerate(facts.layers, 1) if layer.part == part]
        style = dict(color=COLOURS.get(part, QUIET), label=LABELS.get(part, part), marker='o', markersize=5)
        axes.plot(at, [value(facts.layers[number - 1]) for number in at], linewidth=1, **style)
    axes.set_title(title, fontsize=10.5, loc='left')
    axes.set_ylabel(unit)
    axes.set_xlabel('layer, from the picture to the head')
    axes.set_ylim(0, 1.08 * max(map(value, facts.layers)))
    _tidy(axes)


def _gradients(axes: Any, facts: SelectionFacts) -> None:
    """Medians, and bands that hold nine of ten."""
    axes.set_title('gradients that the choice was made by', fontsize=10.5, loc='left')
    known = [(number, layer.gradients) for number, layer in enumerate(facts.layers, 1) if layer.gradients]
    if not known:
        reason = 'not known: no file holds them,\nand not every method reads them'
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
    axes.set_ylabel('magnitude')
    axes.set_xlabel('layer, from the picture to the head')
    axes.legend(fontsize=8, frameon=False)
    _tidy(axes)


def _tidy(axes: Any) -> None:
    axes.grid(axis='y', color='#e6e6e6', linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
