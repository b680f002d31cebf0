"""A killed and resumed run ends with the bits of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator

from mmgps.registry import HOOKS

from ..checkpoints import load_safely
from ..history import pack_history, unpack_history
from ..last_checkpoint import check_last_checkpoint
from ..loaders import ResumableIterator, seeded_loader
from ..pending_gradients import KEY, pack_gradients, restore_gradients
from ..seeding import mixed_seed, run_seed, seed_generators
from ..whole_checkpoints import check_finite, check_loss, save_whole
from ..work_dir import WorkDirLock, hold_work_dir
from .whole_checkpoint_hook import write_before_removing


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make sampling, augmentation and dropout functions of the run's seed and the iteration.

    mmengine restores weights, optimizer and schedulers, but neither the random state nor that of the workers. Here
    they need no restoring: the seed travels in the checkpoint's meta data, and the iteration does too. Skipping what
    was trained before loads nothing. The order of the samples is that of the configured sampler.

    The logged values in a checkpoint become plain lists, so that it loads without executing code.

    What a run goes on from is whole and finite: a checkpoint takes the place of the former when it is written to its
    end, and a run that has diverged stops before it writes one (:mod:`mmgps.engine.whole_checkpoints`).

    One run at a time trains in a work dir (:mod:`mmgps.engine.work_dir`).

    Raises:
        WorkDirError: When training starts, if another run holds the work dir.
        LastCheckpointError: When a run is to be resumed and there is nothing whole where ``last_checkpoint`` points.
        DivergedError: If training makes parameters that are NaN or infinite.
    """

    priority = 'VERY_LOW'
    _gradients: Sequence[Any] = ()
    _lock: WorkDirLock | None = None

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop):  # testing leaves the work dir to others
            self._lock = hold_work_dir(runner.work_dir)
        if runner._resume and runner._load_from is None:
            check_last_checkpoint(runner.work_dir)
        load_safely(runner)
        write_before_removing(runner)
        save_whole(runner)

    def before_train(self, runner: Runner) -> None:
        self._seed, self._rank = run_seed(runner.seed), get_rank()
        loop = runner.train_loop
        loop.dataloader = seeded_loader(loop.dataloader, self._seed, self._rank)
        if isinstance(loop, IterBasedTrainLoop):
            skips_itself = hasattr(_InfiniteDataloaderIterator, 'skip_iter')
            swallowed = 0 if skips_itself else loop.iter
            loop.dataloader_iterator = ResumableIterator(loop.dataloader, loop.iter, swallowed)
        else:  # from a checkpoint within an epoch
            loop.dataloader.batch_sampler.skip = loop.iter - loop.epoch * len(loop.dataloader)
        if self._gradients:
            restore_gradients(runner, self._gradients)

    def after_run(self, runner: Runner) -> None:
        self._lock = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_generators(mixed_seed(self._seed, self._rank, runner.iter))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        check_loss(runner, outputs)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        check_finite(runner)
        pack_gradients(runner, checkpoint)
        pack_history(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        unpack_history(checkpoint)
        if runner._resume:
            self._gradients = checkpoint.get(KEY, ())
