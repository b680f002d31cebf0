"""When to select, restore, freeze and report."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmgps.registry import HOOKS, METHODS
from mmgps.selection import Selection, load_selection, pack_selection, save_selection, unpack_selection
from mmgps.sparse import MaskedTraining, SparseTraining
from mmgps.tuning import TuningMethod, format_report, freeze_unselected

from ..optim import hold_only_trained, wrappers_of
from ..selection_pass import select, unwrapped

CHECKPOINT_KEY = 'mmgps_selection'


@HOOKS.register_module()
class TuneHook(Hook):
    """Fine-tune the backbone by any selection method.

    The method decides in ``before_train``, the first moment with the pre-trained weights in place; a resumed run
    takes the decision from its checkpoint and never decides again. The model's state dict keeps the names and shapes
    of the base architecture.

    Args:
        method: Config of a :class:`mmgps.tuning.TuningMethod`.
        target: Path of the backbone within the model.
        num_batches: Batches of the selection pass on each process; None for all training data.
        selection: A file written by a former run, used instead of selecting.

    Raises:
        ValueError: When training starts, for a ``target`` that the model does not have.
    """

    def __init__(
        self,
        method: dict | TuningMethod,
        target: str = 'backbone',
        num_batches: int | None = None,
        selection: str | None = None,
    ) -> None:
        self.method: TuningMethod = (
            METHODS.build({'_scope_': 'mmgps', **method}) if isinstance(method, dict) else method
        )
        self.target, self.num_batches, self.selection_file = target, num_batches, selection
        self.selection: Selection | None = None
        self.training: SparseTraining | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the selection before the optimizer's state is loaded, only when resuming."""
        if not runner._resume:
            return
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(
                f'the checkpoint to resume from holds no selection ({CHECKPOINT_KEY!r}): it was not trained with '
                f'{type(self).__name__}; start anew from it with load_from instead of --resume'
            )
        selection = unpack_selection(checkpoint[CHECKPOINT_KEY])
        self._check_same_method(selection)
        self._install(runner, selection)

    def before_train(self, runner: Runner) -> None:
        origin = 'selection restored from the checkpoint'
        if self.selection is None:
            selection, origin = self._select(runner)
            self._install(runner, selection)
            self._save(runner, selection)
        assert self.selection is not None
        assert self.training is not None
        self.training.start()
        rewrap(runner)
        report = format_report(unwrapped(runner.model), self.target, self.selection)
        runner.logger.info(f'fine-tuning by {self.method.name}\n{report}\n{origin}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self.selection is not None:
            checkpoint[CHECKPOINT_KEY] = pack_selection(self.selection)

    def _select(self, runner: Runner) -> tuple[Selection, str]:
        if self.selection_file:
            return load_selection(self.selection_file), f'selection read from {self.selection_file}'
        backbone = find_backbone(unwrapped(runner.model), self.target)
        selection, cost = select(runner, backbone, self.method, self.num_batches)
        return selection, str(cost)

    def _install(self, runner: Runner, selection: Selection) -> None:
        backbone = find_backbone(unwrapped(runner.model), self.target)
        self.training = MaskedTraining(backbone, selection)
        frozen = freeze_unselected(backbone, selection)
        for wrapper in wrappers_of(runner.optim_wrapper):
            hold_only_trained(wrapper, frozen, self.training, needed=bool(selection.connections))
        self.selection = selection

    def _check_same_method(self, selection: Selection) -> None:
        wanted, found = (self.method.name, self.method.settings()), (selection.method, dict(selection.settings))
        if wanted != found:
            raise ValueError(
                f'the checkpoint was trained by {found[0]} with {found[1]}, the config asks for {wanted[0]} with '
                f'{wanted[1]}; resume with the settings of the checkpoint, or start anew in another work_dir'
            )

    def _save(self, runner: Runner, selection: Selection) -> None:
        if selection.connections and is_main_process():
            path = Path(runner.work_dir) / 'selection.safetensors'
            save_selection(selection, path)
            runner.logger.info(f'selection written to {path}')


def find_backbone(model: nn.Module, target: str) -> nn.Module:
    """The submodule at path ``target``.

    Raises:
        ValueError: Names the nearest paths.
    """
    modules = dict(model.named_modules())
    if not target or target not in modules:
        top = [name for name, _ in model.named_children()]
        near = get_close_matches(target, [name for name in modules if name], 3, 0.5) or top
        raise ValueError(
            f'target {target!r} is no module of {type(model).__name__}; nearest: {", ".join(near)}; '
            'set target of the hook to the path of the backbone'
        )
    return modules[target]


def rewrap(runner: Runner) -> None:
    """Wrap the model anew, since DDP fixes at construction which parameters it reduces."""
    if is_model_wrapper(runner.model):
        runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), runner.model.module)
