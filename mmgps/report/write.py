"""Write a report: page, pictures and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from mmgps.selection import Quantiles, Selection
from mmgps.sparse import Route
from mmgps.utils.atomic_file import write_atomically

from .facts import SelectionFacts, plain_modules, selection_facts
from .figure import as_png
from .layers_chart import draw_layers
from .map_chart import draw_map
from .overlap import Overlap, in_all, overlaps
from .overlap_chart import draw_overlap
from .page import html_page

HEADINGS = {'layers': 'Along the layers', 'map': 'Where it sits', 'overlap': 'Beside another task'}


class SelectionReport:
    """A report of one selection, or of two tasks' beside each other.

    Args:
        backbone: What the selection was made for.
        selection: What was chosen.
        gradients: See :func:`selection_facts`.
        routes: See :func:`selection_facts`.
        other: The selection of another task on the same architecture.
        names: Of the two tasks.
    """

    def __init__(
        self,
        backbone: nn.Module,
        selection: Selection,
        gradients: Mapping[str, Quantiles] | None = None,
        routes: Mapping[str, Route] | None = None,
        other: Selection | None = None,
        names: Sequence[str] = ('this task', 'the other task'),
    ) -> None:
        backbone = plain_modules(backbone)
        self.facts: SelectionFacts = selection_facts(backbone, selection, gradients, routes)
        place = {layer.name: at for at, layer in enumerate(self.facts.layers)}
        shared = overlaps(selection, other) if other is not None else []
        self.overlaps: list[Overlap] = sorted(shared, key=lambda part: place[part.name])
        self.figures: dict[str, Any] = {}
        if self.facts.layers:
            self.figures['layers'] = draw_layers(self.facts)
            located = draw_map(backbone, selection)
            if located is not None:
                self.figures['map'] = located
        if self.overlaps:
            self.figures['overlap'] = draw_overlap(self.overlaps, {x.name: x.part for x in self.facts.layers}, *names)

    def as_json(self) -> dict[str, Any]:
        """The figures of all pictures and tables."""
        found = self.facts.as_json()
        if self.overlaps:
            found['overlap'] = [
                {**asdict(part), 'share': part.share} for part in [in_all(self.overlaps), *self.overlaps]
            ]
        return found

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``index.html``, ``selection.json`` and a PNG for each picture.

        Returns:
            The page.
        """
        target = Path(folder)
        pictures = {name: as_png(figure) for name, figure in self.figures.items()}
        for name, content in pictures.items():
            write_atomically(target / f'{name}.png', content)
        write_atomically(target / 'selection.json', json.dumps(self.as_json(), indent=1).encode())
        page = html_page(self.facts, {HEADINGS[name]: content for name, content in pictures.items()})
        write_atomically(target / 'index.html', page.encode('utf-8', 'backslashreplace'))
        return target / 'index.html'
