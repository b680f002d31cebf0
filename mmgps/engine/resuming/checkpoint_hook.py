"""Write and remove checkpoints in an order that a killed run survives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmgps.utils.atomic_file import write_atomically

from .checkpoints import NOTE, gathered_gradients, remove_other_best, resumed


def write_before_removing(runner: Runner) -> None:
    """Turn each ``CheckpointHook`` of ``runner`` into an :class:`AtomicCheckpointHook`; subclasses stay as they are."""
    for hook in runner.hooks:
        if type(hook) is CheckpointHook:
            hook.__class__ = AtomicCheckpointHook


class AtomicCheckpointHook(CheckpointHook):
    """Write the new checkpoint, then name it in ``last_checkpoint``, then remove outdated ones.

    mmengine removes first: a run with ``max_keep_ckpts=1`` that is killed before the new file is complete has none to
    resume from. Here such a run may leave one file too many. Arguments, file names and contents are mmengine's.

    Each file records the true position of its run. ``FlexibleRunner`` would record one iteration more when a new best
    score makes it write the last checkpoint again, and a resumed run would skip one.

    Unless ``save_last`` is False, a run that another hook ends early, such as ``EarlyStoppingHook``, has a last
    checkpoint too. mmengine saves it only at the end of the schedule.
    """

    file_backend: Any
    _place: Mapping[str, int] = MappingProxyType({})
    _saved_at = -1
    """Iteration count when the last checkpoint was written, or when training began."""

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._saved_at = runner.iter

    def after_train(self, runner: Runner) -> None:
        if self.save_last and self._saved_at != runner.iter:
            step = runner.epoch if self.by_epoch else runner.iter
            runner.logger.info(f'training ends early: saving checkpoint {self.filename_tmpl.format(step)}')
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))
        super().after_train(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint['meta'].update(self._place)

    @contextmanager
    def _at(self, epoch: int, iter: int) -> Iterator[None]:
        """Context in which saved checkpoints record this position."""
        before, self._place = self._place, dict(epoch=epoch, iter=iter)
        try:
            yield
        finally:
            self._place = before

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated, self._saved_at = self._enter(runner, step), meta['iter']
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        with self._at(meta['epoch'], meta['iter']), gathered_gradients(runner):
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        if is_main_process():
            write_atomically(Path(runner.work_dir) / NOTE, self.last_ckpt.encode())
            for path in outdated:
                self._remove(path)
            self._remove_other_best(runner)

    def _remove_other_best(self, runner: Runner) -> None:
        """Remove older best files that a killed run had no time to remove."""
        for path in map(Path, self._best_paths() if resumed(runner) else ()):
            if (Path(self.out_dir) / path.name).is_file():
                remove_other_best(Path(self.out_dir), path.name)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best or not hasattr(self, 'file_backend'):  # set when training begins
            return
        backend, later = self.file_backend, _DeferredRemoval(self.file_backend)
        self.file_backend = later
        try:
            with self._at(runner.epoch, runner.iter):
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        for path in later.removed:
            if self._is_outdated(path):
                self._remove(path)
        if is_main_process():
            self._remove_other_best(runner)

    def _best_paths(self) -> list[str]:
        best = (getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values())
        return [path for path in best if path]

    def _is_outdated(self, path: str) -> bool:
        """Return True if ``path`` is a file of this run that no new best checkpoint has overwritten."""
        return path not in self._best_paths() and path == self.file_backend.join_path(self.out_dir, Path(path).name)

    def _enter(self, runner: Runner, step: int) -> list[str]:
        """Add the checkpoint of ``step`` to those to keep, and return the paths of those to remove."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return []
        full = len(self.keep_ckpt_ids) == self.max_keep_ckpts
        dropped = [self.keep_ckpt_ids.popleft()] if full else []
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return [self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)) for old in dropped]

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # DeepSpeed writes folders
            self.file_backend.rmtree(path)


class _DeferredRemoval:
    """A file backend that records the paths to remove instead of removing them."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removed.append(path)

    def rmtree(self, path: str) -> None:
        self.removed.append(path)
