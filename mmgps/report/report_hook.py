"""Hook that reports the selection of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgps.engine import find_backbone
from mmgps.engine.hooks import find_tune_hook
from mmgps.engine.resuming.checkpoints import resumed
from mmgps.engine.tuned_backbone import unwrapped
from mmgps.registry import HOOKS
from mmgps.sparse import CompactTraining
from mmgps.utils.atomic_file import skipped_if_unwritable

from .charts import as_pixels
from .selection_report import SelectionReport, read_selection


@HOOKS.register_module()
class SelectionReportHook(Hook):
    """Write ``<work_dir>/selection_report`` when training starts, and pass it to the visualizer.

    The pictures and numbers thus appear wherever the run logs to, such as files or TensorBoard. A resumed run keeps the
    report of its start. Without chosen connections, as under full tuning, there is nothing to report.

    Args:
        other: A selection or delta of another task on the same base, to see what both share.
        names: Names of this task and of the other.
    """

    # After the hook that selects.
    priority = 'LOW'
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
