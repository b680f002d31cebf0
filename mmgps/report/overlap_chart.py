"""A picture of what two selections share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmgps.utils.text import figure_text

from .figure import COLOURS, LABELS, new_figure
from .overlap import Overlap, in_all


def draw_overlap(parts: list[Overlap], kinds: Mapping[str, str], first: str, second: str) -> Any:
    """Shared connections of each layer, beside what choices at random would share.

    Args:
        parts: Layer by layer, in the order of the network.
        kinds: Weight to what its layer is, as :class:`LayerFacts` has it.
        first: Name of the first task.
        second: Name of the second.
    """
    figure = new_figure(12, 4.2)
    axes = figure.subplots()
    everything = in_all(parts)
    at = range(1, len(parts) + 1)
    for kind in dict.fromkeys(kinds.values()):
        mine = {n: 100 * part.share for n, part in zip(at, parts, strict=True) if kinds[part.name] == kind}
        axes.bar(list(mine), list(mine.values()), color=COLOURS[kind], label=LABELS[kind])
    chance = [100 * part.chance_share for part in parts]
    axes.step(at, chance, where='mid', color='#111111', label='two choices at random')
    axes.set_title(
        f'Of the connections that "{figure_text(first)}" or "{figure_text(second)}" chose, {everything.share:.1%} are '
        f'the same ({everything.chance_share:.1%} if both chose at random)',
        fontsize=12,
        loc='left',
    )
    axes.set_ylabel('% of the chosen connections')
    axes.set_xlabel('layer, from the picture to the head')
    figure.legend(*axes.get_legend_handles_labels(), loc='outside lower center', ncols=6, frameon=False)
    axes.grid(axis='y', color='#e6e6e6', linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.margins(x=0.01)
    return figure
