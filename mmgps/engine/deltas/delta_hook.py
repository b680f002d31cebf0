"""Write the deltas of a run, and resume a run from one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmgps.delta import AppliedDelta, BaseFingerprint, Delta, Origin, extract, pack_delta, save_delta, unpack_delta
from mmgps.registry import HOOKS

from ..hooks.before_after_hook import scalars
from ..hooks.tune_hook import find_tune_hook
from ..resuming.checkpoints import check_finite, remove_other_best, resumed
from ..tuned_backbone import find_backbone, unwrapped

BASE_KEY = 'mmgps_delta_base'
FOLDER_KEY = 'mmgps_delta_folder'
DELTA_KEY = 'mmgps_delta'


@HOOKS.register_module()
class DeltaHook(Hook):
    """Write deltas, in addition to checkpoints or instead of the weights in them.

    Deltas go to ``<work_dir>/deltas``: ``iter_200.safetensors`` or ``epoch_8.safetensors``, and
    ``best_mIoU_iter_200.safetensors`` for the best. A delta that is validated right after it was written records its
    scores, unless the run averages weights: then validation scores the average, and deltas hold the trained weights.

    A score that is NaN is never the best one. A run whose parameters are NaN or infinite ends without writing another
    delta. A run that an exception ends resumes from its last checkpoint.

    Args:
        interval: Iterations or epochs between two deltas.
        by_epoch: Count epochs instead of iterations.
        save_last: Write a delta when training ends, at any interval, also if another hook ends training early.
        save_best: Name of a score; the delta with its best value is kept in addition to the others.
        rule: ``'greater'`` or ``'less'``, whichever is better; mmengine knows the rule of common scores.
        max_keep: Number of deltas to keep in addition to the best; -1 keeps all.
        thin_checkpoints: Let the run's checkpoints hold a delta instead of the weights. A run resumes from such a
            checkpoint bit for bit as from a full one, given the base that its config names.
        out_dir: Folder below the work dir.

    Raises:
        ValueError: For an interval below 1, a ``max_keep`` of 0 or a score that is not named; when training starts,
            if no hook tunes the model, or if thin checkpoints or the best delta are asked for in a run with averaged
            weights.
        DivergedError: Instead of writing parameters that are NaN or infinite.
    """

    # After the hook that selects, and after the hooks that add to a checkpoint.
    priority = 'LOW'
    needs_whole_model = 'extract the delta from a checkpoint by tools/delta.py'

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        save_last: bool = True,
        save_best: str | None = None,
        rule: str | None = None,
        max_keep: int = -1,
        thin_checkpoints: bool = False,
        out_dir: str = 'deltas',
    ) -> None:
        if interval < 1 or max_keep == 0:
            raise ValueError(
                f'{interval=} and {max_keep=}: expected an interval of 1 or more, and 1 or more to keep or -1 for all; '
                'leave the hook out to write no deltas'
            )
        self.interval, self.by_epoch, self.save_last = interval, by_epoch, save_last
        self.save_best, self.thin_checkpoints = save_best, thin_checkpoints
        self.folder = DeltaFolder(out_dir, max_keep)
        if save_best is not None:
            if save_best == 'auto':
                raise ValueError("save_best='auto': expected the name of a score, such as 'mIoU'")
            judge = CheckpointHook(save_best=save_best, rule=rule)
            self._better = judge.is_better_than[save_best]
            self._worst = judge.init_value_map[judge.rules[0]]
        self.base: BaseFingerprint | None = None
        self._scored = True
        self._written: tuple[int, Path] | None = None
        self._scores: tuple[int, dict[str, float]] | None = None
        self._unwritten = False

    def before_train(self, runner: Runner) -> None:
        tune, model = find_tune_hook(runner), unwrapped(runner.model)
        self._check_hooks(runner)
        if self.base is None:
            if resumed(runner):
                raise ValueError(
                    f'the checkpoint to resume from does not describe its base ({BASE_KEY!r}): it was written without '
                    'mmgps.DeltaHook; extract a delta with tools/delta.py when the run is over'
                )
            self.base = BaseFingerprint.of(find_backbone(model, tune.target), tune.selection)
        self.folder.enter(runner.work_dir)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self._unwritten = True
        if not self.by_epoch and self._due(runner, self.every_n_train_iters, self.is_last_train_iter):
            self._write(runner, runner.iter + 1, runner.epoch)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and self._due(runner, self.every_n_epochs, self.is_last_train_epoch):
            self._write(runner, runner.iter, runner.epoch + 1)

    def after_train(self, runner: Runner) -> None:
        """Write the delta of a run that ends before the last step of its schedule."""
        if self.save_last and self._unwritten:
            self._write(runner, runner.iter, runner.epoch)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self.base is None or not is_main_process():
            return
        scores = scalars(metrics or {})
        if self._scored:
            self._scores = runner.iter, scores
        if self._scored and self._written is not None and self._written[0] == runner.iter:
            save_delta(self.delta(runner, runner.iter, runner.epoch, scores), self._written[1])
        if self.save_best is not None and (metrics or {}).get(self.save_best, '') is not None:  # None is no score yet
            self._write_best(runner, scores)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self.base is None:
            return
        checkpoint[BASE_KEY] = asdict(self.base)
        checkpoint[FOLDER_KEY] = self.folder.state()
        if self.thin_checkpoints:
            meta = checkpoint['meta']
            checkpoint[DELTA_KEY] = pack_delta(self.delta(runner, meta['iter'], meta['epoch'], {}))
            checkpoint['state_dict'] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Fill a thin checkpoint with the base, which is in the model."""
        if runner._resume and BASE_KEY in checkpoint:
            self.base = BaseFingerprint(**checkpoint[BASE_KEY])
            self.folder.restore(checkpoint[FOLDER_KEY])
        if DELTA_KEY in checkpoint:
            model: Any = unwrapped(runner.model)
            if not getattr(model, 'is_init', True):
                model.init_weights()
            AppliedDelta(model, unpack_delta(checkpoint[DELTA_KEY]))
            checkpoint['state_dict'] = {name: value.clone() for name, value in model.state_dict().items()}

    def delta(self, runner: Runner, iteration: int, epoch: int, metrics: dict[str, float]) -> Delta:
        """Delta of the run so far.

        Raises:
            DivergedError: If it holds NaN or infinity.
        """
        check_finite(runner, kind='delta')
        tune, model = find_tune_hook(runner), unwrapped(runner.model)
        assert tune.selection is not None
        assert self.base is not None
        meta = getattr(runner.train_dataloader.dataset, 'metainfo', None)
        origin = origin_of(runner.cfg, meta, epoch, iteration, metrics)
        return extract(model, tune.selection, self.base, tune.target, origin)

    def _check_hooks(self, runner: Runner) -> None:
        averaging = [type(hook).__name__ for hook in runner.hooks if hasattr(hook, 'ema_model')]
        self._scored = not averaging
        if averaging and (self.thin_checkpoints or self.save_best is not None):
            raise ValueError(
                f'{averaging[0]} keeps averaged weights besides the trained ones: a thin checkpoint holds one set of '
                'weights, and validation scores the averaged ones, which no delta holds; set thin_checkpoints=False '
                'and save_best=None of mmgps.DeltaHook'
            )
        if self.thin_checkpoints and any(getattr(hook, 'published_keys', None) for hook in runner.hooks):
            raise ValueError(
                'published_keys of CheckpointHook would publish files without weights, since thin checkpoints hold a '
                'delta instead; leave out one of them'
            )
        if averaging:
            runner.logger.warning(f'deltas get no scores: {averaging[0]} validates averaged weights')

    def _due(self, runner: Runner, every: Any, is_last: Any) -> bool:
        return every(runner, self.interval) or (self.save_last and is_last(runner))

    def _write(self, runner: Runner, iteration: int, epoch: int) -> None:
        self._unwritten = False
        check_finite(runner, kind='delta')  # on every process, so that all of them end
        if is_main_process():
            name = f'epoch_{epoch}' if self.by_epoch else f'iter_{iteration}'
            scores = self._scores[1] if self._scores is not None and self._scores[0] == iteration else {}
            path = self.folder.write(self.delta(runner, iteration, epoch, scores), name)
            self._written = (iteration, path)
            runner.logger.info(f'delta of {path.stat().st_size:,} bytes written to {path}')

    def _write_best(self, runner: Runner, scores: dict[str, float]) -> None:
        if self.save_best not in scores:
            raise ValueError(
                f'save_best={self.save_best!r} is no score of the validation; expected one of {", ".join(scores)}'
            )
        score, before = scores[self.save_best], self.folder.best_score
        if before is None or math.isnan(before):  # a checkpoint of an older release may hold NaN
            before = self._worst
        if self._better(score, before):
            step = f'epoch_{runner.epoch}' if self.by_epoch else f'iter_{runner.iter}'
            name = f'best_{self.save_best.replace("/", "_")}_{step}'
            path = self.folder.write_best(self.delta(runner, runner.iter, runner.epoch, scores), name, score)
            runner.logger.info(f'best delta so far, {self.save_best} {score:.4f}: {path}')


def origin_of(
    cfg: Config,
    dataset_meta: Mapping[str, Any] | None,
    epoch: int | None,
    iteration: int | None,
    metrics: Mapping[str, float] | None = None,
) -> Origin:
    """Origin of a delta, as JSON values; other values become text."""
    config, classes = (json.loads(json.dumps(part, default=str)) for part in (cfg.to_dict(), dict(dataset_meta or {})))
    return Origin(dict(metrics or {}), config, classes, epoch, iteration)


class DeltaFolder:
    """Delta files of a run in the folder ``name`` of its work dir: the last ``limit``, or all for -1, and the best."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.path = Path(name)
        self.best_score: float | None = None
        self._kept: list[str] = []
        self._best: str | None = None
        self._resumed = False

    def enter(self, work_dir: str) -> None:
        """Place the folder in ``work_dir``."""
        self.path = Path(work_dir) / self.name

    def write(self, delta: Delta, name: str) -> Path:
        """Write ``delta``, and remove the oldest beyond the limit."""
        path = self.path / f'{name}.safetensors'
        save_delta(delta, path)
        self._remove_other_best()
        self._kept = [*(kept for kept in self._kept if kept != path.name), path.name]
        while 0 < self.limit < len(self._kept):
            (self.path / self._kept.pop(0)).unlink(missing_ok=True)
        return path

    def write_best(self, delta: Delta, name: str, score: float) -> Path:
        """Write ``delta`` as the best, and remove the best one before it."""
        path = self.path / f'{name}.safetensors'
        save_delta(delta, path)
        if self._best not in (None, path.name):
            (self.path / str(self._best)).unlink(missing_ok=True)
        self._best, self.best_score = path.name, score
        self._remove_other_best()
        return path

    def _remove_other_best(self) -> None:
        """Remove an older best delta that a killed run had no time to remove."""
        if self._resumed and self._best is not None and (self.path / self._best).is_file():
            remove_other_best(self.path, self._best)

    def state(self) -> dict[str, Any]:
        """State of the folder, for a checkpoint."""
        return {'kept': list(self._kept), 'best': self._best, 'best_score': self.best_score}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state` from a checkpoint. Only the file names count, since the folder may have moved."""
        self._resumed = True
        self._kept, self.best_score = [Path(name).name for name in state['kept']], state['best_score']
        self._best = None if state['best'] is None else Path(state['best']).name
