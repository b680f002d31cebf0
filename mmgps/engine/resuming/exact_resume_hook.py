"""Make a killed and resumed run end with the bits of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator

from mmgps.registry import HOOKS

from ..configs.work_dir import WorkDirLock, lock_work_dir
from ..safe_loading import load_safely
from .checkpoint_hook import write_before_removing
from .checkpoints import (
    GRADIENTS_KEY,
    check_finite,
    check_last_checkpoint,
    check_loss,
    is_training,
    pack_gradients,
    pack_history,
    restore_gradients,
    resumed,
    save_atomically,
    unpack_history,
)
from .hook_memory import HOOKS_KEY, HookMemory
from .loaders import ResumableIterator, check_batches, check_positions, seeded_loader
from .resumption import RUN_KEY, BeforeValidation, plan_resumption, validate_if_due, warn_if_finished
from .run_settings import RunSettings
from .schedules import ResumptionPlan, apply_plan
from .seeding import mixed_seed, run_seed, seed_generators


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make sampling, augmentation and dropout functions of the run's seed and the iteration.

    mmengine restores weights, optimizer and schedulers, but no random state, neither its own nor that of the workers.
    Here no random state needs to be restored: the meta data of a checkpoint hold the seed and the iteration. Samples
    that were trained before are skipped without being loaded. The configured sampler decides their order.

    A checkpoint records its settings. A run that resumes under other settings follows them and logs a warning, or is
    refused: :mod:`mmgps.engine.resuming.resumption` has the list.

    The last checkpoint is always complete and finite, and loads without executing code: a new one replaces it once it
    is complete, and a diverged run stops before it writes one (:mod:`mmgps.engine.resuming.checkpoints`).

    One run at a time trains in a work dir (:mod:`mmgps.engine.configs.work_dir`).

    Args:
        exempt: Names of hook classes whose memory has no effect and may be lost on resuming.

    Raises:
        WorkDirError: When training starts, if another run holds the work dir.
        LastCheckpointError: When a run resumes and ``last_checkpoint`` points to no complete file.
        ResumeError: If a run cannot follow a changed setting.
        DivergedError: If training produces parameters that are NaN or infinite.
    """

    priority = 'VERY_LOW'

    def __init__(self, exempt: Sequence[str] = ()) -> None:
        self._memory = HookMemory(exempt)
        self._gradients: Sequence[Any] = ()
        self._settings: RunSettings | None = None
        self._plan: ResumptionPlan | None = None
        self._lock: WorkDirLock | None = None
        self._before_validation = BeforeValidation()

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop):  # testing leaves the work dir to others
            self._lock = lock_work_dir(runner.work_dir)
        if runner._resume and runner._load_from is None:
            check_last_checkpoint(runner.work_dir)
        load_safely(runner)
        write_before_removing(runner)
        save_atomically(runner)
        self._read_settings(runner)

    def before_train(self, runner: Runner) -> None:
        self._seed, self._rank = run_seed(runner.seed), get_rank()
        loop = runner.train_loop
        check_batches(loop.dataloader)
        assert self._settings is not None
        if self._plan is not None:
            apply_plan(runner, self._plan, self._settings)
            self._plan = None
        loop.dataloader = seeded_loader(loop.dataloader, self._seed, self._rank)
        if isinstance(loop, IterBasedTrainLoop):
            skips_itself = hasattr(_InfiniteDataloaderIterator, 'skip_iter')
            swallowed = 0 if skips_itself else loop.iter
            loop.dataloader_iterator = ResumableIterator(loop.dataloader, loop.iter, swallowed)
        else:  # from a checkpoint within an epoch
            loop.dataloader.batch_sampler.start_at(loop.epoch, loop.iter - loop.epoch * len(loop.dataloader))
        if self._gradients:
            restore_gradients(runner, self._gradients)
        self._memory.begin(runner)
        if resumed(runner):
            validate_if_due(runner)
            warn_if_finished(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the epoch of the sampler, also if the config lacks mmengine's hook for it."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            runner.train_loop.dataloader.batch_sampler.set_epoch(runner.epoch)

    def after_run(self, runner: Runner) -> None:
        self._lock = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._memory.release()
        self._before_validation.release()
        seed_generators(mixed_seed(self._seed, self._rank, runner.iter))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        check_loss(runner, outputs)

    def before_val_epoch(self, runner: Runner) -> None:
        if self._settings is not None:
            self._memory.hold(runner)
            self._before_validation.hold(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        check_finite(runner)
        pack_gradients(runner, checkpoint)
        if self._settings is not None:
            checkpoint[RUN_KEY] = self._settings.pack()
            checkpoint[HOOKS_KEY] = self._memory.pack(runner)
            self._before_validation.put_into(checkpoint)
        pack_history(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        unpack_history(checkpoint)
        if not runner._resume or not is_training(runner):
            return
        check_batches(runner.train_dataloader)
        self._read_settings(runner)
        assert self._settings is not None
        self._plan = plan_resumption(runner, checkpoint, self._settings)
        self._memory.restore(runner, checkpoint.get(HOOKS_KEY, {}))
        self._gradients = checkpoint.get(GRADIENTS_KEY, ())

    def _read_settings(self, runner: Runner) -> None:
        """Read the settings before anything is loaded or stepped: a ``FlexibleRunner`` loads before it runs."""
        if self._settings is None and is_training(runner):
            check_positions(runner.train_dataloader)
            self._settings = RunSettings.of(runner)
