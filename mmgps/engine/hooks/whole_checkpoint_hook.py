"""When to write checkpoints, in an order that a killed run survives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmgps.whole_file import write_whole

from ..last_checkpoint import NOTE
from ..pending_gradients import gathered_gradients


def write_before_removing(runner: Runner) -> None:
    """Let each ``CheckpointHook`` of ``runner`` be a :class:`WholeCheckpointHook`; classes derived from it stay."""
    for hook in runner.hooks:
        if type(hook) is CheckpointHook:
            hook.__class__ = WholeCheckpointHook


class WholeCheckpointHook(CheckpointHook):
    """Write the new checkpoint, then name it in ``last_checkpoint``, then remove what is outdated.

    mmengine removes first: killed before the new file is whole, a run with ``max_keep_ckpts=1`` has none to go on
    from. Arguments, names and contents of the files are those of mmengine's hook. Killed before it has removed, a run
    leaves a file more than it should keep.

    Each file says where its run was. ``FlexibleRunner`` overwrites that by one iteration more when a new best score
    has the last checkpoint written again: the resumed run would skip one.
    """

    file_backend: Any
    _place: Mapping[str, int] = MappingProxyType({})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint['meta'].update(self._place)

    @contextmanager
    def _at(self, epoch: int, iter: int) -> Iterator[None]:
        """What is saved within is of this moment."""
        before, self._place = self._place, dict(epoch=epoch, iter=iter)
        try:
            yield
        finally:
            self._place = before

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated = self._enter(runner, step)
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
            write_whole(Path(runner.work_dir) / NOTE, self.last_ckpt.encode())
            for path in outdated:
                self._remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best or not hasattr(self, 'file_backend'):  # set when training begins; before, none is better
            return
        backend, later = self.file_backend, _RemovesLater(self.file_backend)
        self.file_backend = later
        try:
            with self._at(runner.epoch, runner.iter):
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        for path in later.removed:
            if self._is_outdated(path):
                self._remove(path)

    def _is_outdated(self, path: str) -> bool:
        """Whether it is a file of this run, and not the new best one under the name of the old."""
        best = (getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values())
        return path not in best and path == self.file_backend.join_path(self.out_dir, Path(path).name)

    def _enter(self, runner: Runner, step: int) -> list[str]:
        """Count the checkpoint of ``step`` among those to keep; the paths that drop out."""
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


class _RemovesLater:
    """A file backend that puts off what it is told to remove."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removed.append(path)

    def rmtree(self, path: str) -> None:
        self.removed.append(path)
