"""The hooks that tune a model: when to select, restore, freeze and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmgps.registry import CHOICES, HOOKS, LEAN, MICRO_BATCHES, SCORES, SELECTION_LOSSES, SPARSE
from mmgps.selection import (
    Quantiles,
    Selection,
    load_selection,
    pack_selection,
    save_selection,
    unpack_selection,
)
from mmgps.sparse import LeanOption, SparseTraining
from mmgps.tuned import Tuned
from mmgps.tuning import (
    GPS,
    FirstIteration,
    LinearProbe,
    LoadingWatch,
    TuningMethod,
    check_candidates,
    check_chosen,
    check_held,
    neutralize_unused,
    resting,
    unused_message,
)

from ..configs.components import build_method
from ..deltas.base_model import check_loaded
from ..deltas.checkpoint_method import CHECKPOINT_KEY, check_not_thin, check_nothing_lost, follow_in_test
from ..fsdp.wrapping import check_made_before, check_strategy, model_on_device, rewrap, shard_base
from ..optim import take_over, watch_losses, wrappers_of
from ..resuming.checkpoints import is_training, pack_history, resumed, unpack_history
from ..resuming.loaders import check_batches
from ..safe_loading import load_safely
from ..selecting.micro_batches import MicroBatches
from ..selecting.selection_pass import check_same_loss, check_same_method, check_same_training, select
from ..tuned_backbone import find_backbone, method_of, unwrapped
from .before_after_hook import check_metrics

TRAINING_KEY = 'mmgps_training'


@HOOKS.register_module()
class TuneHook(Hook):
    """Fine-tune the backbone by any method.

    The method selects in ``before_train``, the first point with the pre-trained weights in place; a resumed run takes
    the selection from its checkpoint and never selects again. The state dict of the model keeps the names and shapes
    of the base architecture.

    Args:
        method: Config of a :class:`mmgps.tuning.TuningMethod`; left out where ``mmgps.TunedBackbone`` names it.
        target: Path of the backbone within the model.
        num_batches: Batches of the selection pass on each process; None for all training data.
        selection: Selection file of an earlier run with the same method, used instead of selecting.
        sparse: Config of the sparse training: ``mmgps.CompactTraining``, the default, at about the cost of bias tuning,
            or ``mmgps.MaskedTraining``, the slow obvious way.
        loss: Config of the loss of the selection pass: ``mmgps.TaskLoss``, the default, or ``mmgps.SupConLoss``.
        lean: Configs of options that save time or memory in a step and change the rounding: ``mmgps.FusedAttention``,
            ``mmgps.Recomputation``.
        micro_batches: Config of :class:`mmgps.MicroBatches`, by which the selection pass needs no more memory than
            training; left out, the pass takes full batches.
        allow_random_base: Accept a backbone of which the loaded file fills less than nine tenths.

    Raises:
        RandomBaseError: When training starts, for such a file without ``allow_random_base``.
        ValueError: When training starts, for a ``target`` that the model does not have, or an option of ``lean`` that
            does not apply to the backbone.
    """

    def __init__(
        self,
        method: dict | TuningMethod | None = None,
        target: str = 'backbone',
        num_batches: int | None = None,
        selection: str | None = None,
        sparse: dict | None = None,
        loss: dict | None = None,
        lean: Sequence[dict] = (),
        micro_batches: dict | None = None,
        allow_random_base: bool = False,
    ) -> None:
        self.method: TuningMethod | None = build_method(method) if isinstance(method, dict) else method
        self.target, self.num_batches, self.selection_file = target, num_batches, selection
        self.allow_random_base = allow_random_base
        self._loading: LoadingWatch | None = None
        self.sparse = sparse or dict(type='CompactTraining')
        self.loss = SELECTION_LOSSES.build({'_scope_': 'mmgps', 'type': 'TaskLoss', **(loss or {})})
        self.lean: list[LeanOption] = [LEAN.build({'_scope_': 'mmgps', **option}) for option in lean]
        self.micro_batches: MicroBatches | None = None
        if micro_batches is not None:
            self.micro_batches = MICRO_BATCHES.build({'_scope_': 'mmgps', 'type': 'MicroBatches', **micro_batches})
        # A selection file records its loss, so only a loss that is named beside it has to agree.
        self._compares_loss = not selection or loss is not None
        self._loaded_to_test = False
        self.tuned: Tuned | None = None
        self._first: FirstIteration | None = None
        self.gradients: Mapping[str, Quantiles] = {}
        """Quantiles of the gradients that this process selected by."""

    @property
    def selection(self) -> Selection | None:
        """The selection, once it was made or restored."""
        return self.tuned.selection if self.tuned else None

    def before_run(self, runner: Runner) -> None:
        """Let training load again after a validation: mmengine loads only once, and initialises the weights again."""
        load_safely(runner)
        if not is_training(runner):
            return
        if self._loaded_to_test:
            self._loaded_to_test = runner._has_loaded = False
        if self._loading is None and self.selection is None:
            self._loading = LoadingWatch(self._backbone(runner))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the selection before the optimizer state is loaded, only when resuming.

        A tested model needs the injected modules of its checkpoint, and no selection.
        """
        unpack_history(checkpoint)
        check_not_thin(runner, checkpoint)
        if not is_training(runner):  # tested, also by the config of a run that was resumed
            self._loaded_to_test = True
            for state in ('optimizer', 'param_schedulers'):
                checkpoint.pop(state, None)
            follow_in_test(runner, checkpoint, self.target, self.method)
            return
        if not runner._resume:
            check_nothing_lost(unwrapped(runner.model), self.target, checkpoint.get('state_dict', checkpoint))
            if self._loading is None:  # a FlexibleRunner loads before before_run
                self._loading = LoadingWatch(self._backbone(runner))
            return
        find_tune_hook(runner)
        check_strategy(runner, self.sparse, bool(self.lean))
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(
                f'the checkpoint to resume from holds no selection ({CHECKPOINT_KEY!r}): it was not trained with '
                f'{type(self).__name__}; start anew from it with load_from instead of --resume'
            )
        selection = unpack_selection(checkpoint[CHECKPOINT_KEY])
        self._check_same(runner, selection, 'the checkpoint')
        self._install(runner, selection)
        check_same_training(self._installed.training, checkpoint.get(TRAINING_KEY), selection)

    def before_train(self, runner: Runner) -> None:
        origin = 'selection restored from the checkpoint'
        check_batches(runner.train_dataloader)
        check_strategy(runner, self.sparse, bool(self.lean))
        find_tune_hook(runner)
        watch, self._loading = self._loading, None
        if watch is not None:
            check_loaded(runner, watch, self.selection is not None or self.allow_random_base)
        check_metrics(runner)
        if self.selection is None:
            self._backbone(runner).train()  # most freeze their frozen_stages then, not when they are built
            selection, origin = self._select(runner)
            self._install(runner, selection)
            self._save(runner, selection)
        tuned = self._installed
        shard_base(runner, tuned.training)
        tuned.start(registered=False)
        rewrap(runner)
        runner.logger.info(f'{tuned}\n{origin}')
        self._watch(runner)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if self._first is None:
            return
        done, unused = self._first.finish()
        if unused:
            runner.logger.warning(unused_message(unused))
            if not resumed(runner):
                neutralize_unused(unwrapped(runner.model), unused)
        if done:
            self._first = None
            watch_losses(runner.optim_wrapper, None)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        pack_history(checkpoint)
        if self.tuned is not None:
            checkpoint[CHECKPOINT_KEY] = pack_selection(self.tuned.selection)
            checkpoint[TRAINING_KEY] = type(self.tuned.training).__name__

    def _select(self, runner: Runner) -> tuple[Selection, str]:
        if self.selection_file:
            selection = load_selection(self.selection_file)
            self._check_same(runner, selection, self.selection_file)
            return selection, f'selection read from {self.selection_file}'
        backbone, method = self._backbone(runner), self._method(runner)
        check_candidates(method, backbone)
        with model_on_device(runner):
            result = select(runner, backbone, method, self.num_batches, self.loss, self.micro_batches)
        if not isinstance(method, LinearProbe):
            check_chosen(result.selection, backbone)
        self.gradients = result.gradients
        return result.selection, str(result.cost)

    def _install(self, runner: Runner, selection: Selection) -> None:
        model, method = unwrapped(runner.model), self._method(runner)
        self._backbone(runner).train()  # backbones of mm libraries return nothing
        self.tuned = Tuned(model, selection, method, self.target, self._build_training, self.lean)
        check_made_before(runner, method, self.target)
        take_over(runner.optim_wrapper, self.tuned)

    def _build_training(self, backbone: nn.Module, selection: Selection) -> SparseTraining:
        training: SparseTraining = SPARSE.build(
            {'_scope_': 'mmgps', **self.sparse, 'backbone': backbone, 'selection': selection}
        )
        return training

    @property
    def _installed(self) -> Tuned:
        assert self.tuned is not None, 'training starts before a selection is made or restored'
        return self.tuned

    def _watch(self, runner: Runner) -> None:
        """Check that optimizers hold every trained tensor, and watch which tensors the first iteration leaves out."""
        if self._first is not None:
            self._first.close()
        trained = self._installed.trained()
        optimizers = [wrapper.optimizer for wrapper in wrappers_of(runner.optim_wrapper)]
        check_held(trained, optimizers)
        still = resting(trained, optimizers)
        if still:
            runner.logger.warning(
                f'{len(still)} trained tensors have a learning rate of 0 and will not move, first {still[0]}; raise lr '
                'of optim_wrapper.optimizer, or lr_mult in its paramwise_cfg'
            )
        self._first = self._installed.watch(optimizers)
        watch_losses(runner.optim_wrapper, self._first)

    def _backbone(self, runner: Runner) -> nn.Module:
        return find_backbone(unwrapped(runner.model), self.target)

    def _method(self, runner: Runner) -> TuningMethod:
        return method_of(self._backbone(runner), self.method)

    def _check_same(self, runner: Runner, selection: Selection, where: str) -> None:
        check_same_method(self._method(runner), selection, where)
        if self._compares_loss:
            check_same_loss(self.loss, selection, where)

    def _save(self, runner: Runner, selection: Selection) -> None:
        if selection.connections and is_main_process():
            path = Path(runner.work_dir) / 'selection.safetensors'
            save_selection(selection, path)
            runner.logger.info(f'selection written to {path}')


def find_tune_hook(runner: Runner) -> TuneHook:
    """Find the hook that tunes the model.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = [hook for hook in runner.hooks if isinstance(hook, TuneHook)]
    if len(found) != 1:
        raise ValueError(
            f'one mmgps.GPSHook or mmgps.TuneHook is expected in custom_hooks; the run has {len(found)} of them'
        )
    return found[0]


@HOOKS.register_module()
class GPSHook(TuneHook):
    """Select, of every neuron of the backbone, the ``k`` connections with the largest gradient, and train only those.

    Use it with ``optim_wrapper=dict(type='mmgps.GPSOptimWrapper', ...)``.

    Args:
        k: Connections per neuron.
        score: Config of the score.
        choice: Config of the choice.
        full_roles: Roles that are trained in full, see :class:`mmgps.tuning.GPS`.
        options: Arguments of :class:`TuneHook` other than ``method``.
    """

    def __init__(
        self,
        k: int = 1,
        score: dict | None = None,
        choice: dict | None = None,
        full_roles: str | Sequence[str] = ('bias', 'scale', 'position_bias'),
        **options: Any,
    ) -> None:
        method = GPS(
            k,
            SCORES.build({'_scope_': 'mmgps', 'type': 'GradientScore', **(score or {})}),
            CHOICES.build({'_scope_': 'mmgps', 'type': 'PerNeuron', **(choice or {})}),
            full_roles,
        )
        super().__init__(method, **options)
