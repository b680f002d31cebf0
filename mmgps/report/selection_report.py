"""Report of a selection as one page, with its pictures and its numbers as JSON, and the hook that writes it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmgps.delta import check_injection, inject_missing, load_delta
from mmgps.engine import build_plain, find_backbone
from mmgps.engine.hooks import find_tune_hook
from mmgps.engine.resuming.checkpoints import resumed
from mmgps.engine.tuned_backbone import unwrapped
from mmgps.registry import HOOKS
from mmgps.selection import Quantiles, Selection, load_selection
from mmgps.sparse import CompactTraining, Route
from mmgps.utils.atomic_file import skipped_if_unwritable, write_atomically

from .charts import as_pixels, as_png, draw_layers, draw_map, draw_overlap
from .facts import LayerFacts, Overlap, SelectionFacts, in_all, overlaps, plain_modules, selection_facts

MIB = 2**20
COLUMNS = {
    'layer': lambda x: x.name,
    'neurons': lambda x: f'{x.neurons:,}',
    'inputs': lambda x: f'{x.fan_in:,}',
    'trained': lambda x: f'{x.chosen:,}',
    'share': lambda x: f'{x.share:.3%}',
    'inputs chosen': lambda x: f'{x.columns:,} ({x.column_share:.0%})',
    'from the busiest five': lambda x: f'{x.busiest:.0%}',
    'median gradient, chosen / all': lambda x: _medians(x),
    'route': lambda x: x.route,
    'input kept': lambda x: f'{x.kept_inputs:.0%}',
    'saved, MiB': lambda x: f'{x.bytes_saved / MIB:.2f}',
}
HEADINGS = {'layers': 'Along the layers', 'map': 'Chosen inputs', 'overlap': 'Overlap with another task'}


def html_page(facts: SelectionFacts, pictures: Mapping[str, bytes]) -> str:
    """Fill in ``page.html.j2``; ``pictures`` are PNG files by the names of :data:`HEADINGS`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    engine = Environment(
        loader=PackageLoader(__package__, ''), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return engine.get_template('page.html.j2').render(
        facts=facts,
        roles=', '.join(f'{role.replace("_", " ")} {count:,}' for role, count in facts.roles.items()),
        saved=f'{sum(layer.bytes_saved for layer in facts.layers) / MIB:,.1f}',
        pictures={HEADINGS[name]: base64.b64encode(content).decode() for name, content in pictures.items()},
        columns=COLUMNS,
    )


def _medians(layer: LayerFacts) -> str:
    if layer.gradients is None:
        return 'unknown'
    return f'{layer.gradients.of_chosen[2]:.2g} / {layer.gradients.of_all[2]:.2g}'


class SelectionReport:
    """Report of one selection, or of the selections of two tasks side by side.

    Args:
        backbone: Backbone of the selection.
        selection: The selection.
        gradients: See :func:`selection_facts`.
        routes: See :func:`selection_facts`.
        other: Selection of another task on the same architecture.
        names: Names of the two tasks.
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
        """Return the numbers of all pictures and tables as JSON values."""
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
        page = html_page(self.facts, pictures).encode('utf-8', 'backslashreplace')
        write_atomically(target / 'index.html', page)
        return target / 'index.html'


def report_of_file(
    cfg: Config,
    path: str | os.PathLike[str],
    target: str = 'backbone',
    other: str | os.PathLike[str] | None = None,
    names: Sequence[str] = ('this task', 'the other task'),
) -> SelectionReport:
    """Make the report of a selection file or delta, without loading any weights.

    Args:
        cfg: Config of the run; only its architecture matters.
        path: A selection or a delta.
        target: Path of the backbone within the model.
        other: Selection or delta of another task.
        names: Names of the two tasks.

    Raises:
        SelectionMismatchError: If it was made for another architecture.
    """
    selection = read_selection(path)
    backbone = find_backbone(build_plain(cfg), target)
    beside = set(selection.whole) - dict(backbone.named_parameters()).keys()
    check_injection(backbone, selection, dict.fromkeys(beside))
    inject_missing(backbone, selection, beside)
    return SelectionReport(backbone, selection, other=None if other is None else read_selection(other), names=names)


def read_selection(path: str | os.PathLike[str]) -> Selection:
    """Read the selection from a selection file or a delta file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is neither.
    """
    try:
        return load_selection(path)
    except ValueError as first:
        try:
            return load_delta(path).selection
        except ValueError as second:
            raise ValueError(f'expected a selection or a delta; {first}; {second}') from second


@HOOKS.register_module()
class SelectionReportHook(Hook):
    """Write ``<work_dir>/selection_report`` when training starts, and pass it to the visualizer.

    The pictures and numbers appear in all logs of the run, such as files or TensorBoard. A resumed run keeps its first
    report. Without chosen connections, as under full tuning, no report is written.

    Args:
        other: A selection or delta of another task on the same base, to report the overlap.
        names: Names of this task and of the other.
    """

    priority = 'LOW'  # after the hook that selects
    needs_whole_model = 'draw the report from selection.safetensors by tools/selection_report.py'

    def __init__(self, other: str | None = None, names: Sequence[str] = ('this task', 'the other task')) -> None:
        self.other, self.names = other, names

    def before_train(self, runner: Runner) -> None:
        tune = find_tune_hook(runner)
        assert tune.tuned is not None
        selection, training = tune.tuned.selection, tune.tuned.training
        if resumed(runner) or not is_main_process() or not selection.connections:
            return
        backbone = find_backbone(unwrapped(runner.model), tune.target)
        routes = training.routes() if isinstance(training, CompactTraining) else {}
        other = None if self.other is None else read_selection(self.other)
        report = SelectionReport(backbone, selection, tune.gradients, routes, other, self.names)
        with skipped_if_unwritable(runner.logger.warning):
            page = report.write(Path(runner.work_dir) / 'selection_report')
            log_report(runner, report)
            runner.logger.info(f'report of the selection: {page}')


def log_report(runner: Runner, report: SelectionReport) -> None:
    """Pass pictures and numbers to the visualizer of ``runner``."""
    for name, figure in report.figures.items():
        runner.visualizer.add_image(f'selection_{name}', as_pixels(figure))
    facts = report.facts
    scalars = {'selection/trained': facts.trained, 'selection/trained_share': facts.trained / facts.total}
    for layer in facts.layers:
        scalars[f'selection/column_share/{layer.name}'] = layer.column_share
    runner.visualizer.add_scalars(scalars)
