"""Record the scores and costs of a training run."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import mmcv
import mmengine
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmgps.benchmark.measurements import machine_header
from mmgps.benchmark.memory import peak_resident
from mmgps.engine import TuneHook, find_backbone
from mmgps.engine.tuned_backbone import unwrapped
from mmgps.selection import Selection
from mmgps.tuning.table import count_backbone, count_parts, count_whole
from mmgps.utils.atomic_file import write_json

CHECKPOINT_KEY = 'mmgps_cost'
LIBRARIES = ('mmseg', 'mmpretrain')
"""Libraries whose versions are recorded if a run uses them. This layer does not import them."""


class RecordHook(Hook):
    """Write a JSON file with the scores of the last step when training ends.

    Step times exclude data loading, and peak memory excludes validation. Checkpoints carry both, so that a resumed run
    reports all of its steps.

    Args:
        path: File to write.
        target: Path of the backbone within the model.
        facts: Further entries of the file.
        backbone_lr: Expected learning rate of all trained parameters of the backbone; None for no check.
    """

    priority = 'BELOW_NORMAL'  # after TuneHook has decided what is trained, before CheckpointHook saves the times

    def __init__(self, path: Path, target: str, facts: dict[str, Any], backbone_lr: float | None = None) -> None:
        self.path, self.target, self.facts, self.backbone_lr = path, target, facts, backbone_lr
        self.times: list[float] = []
        self.peak, self.measured = 0, False
        self.metrics: dict[str, float] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner._resume and CHECKPOINT_KEY in checkpoint:
            self.times, self.peak = checkpoint[CHECKPOINT_KEY]['times'], checkpoint[CHECKPOINT_KEY]['peak']

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        self._measure()
        checkpoint[CHECKPOINT_KEY] = dict(times=list(self.times), peak=self.peak)

    def before_train(self, runner: Runner) -> None:
        if self.backbone_lr is not None:
            check_rates(runner, self.target, self.backbone_lr)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        _synchronize()
        self._started = time.perf_counter()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        _synchronize()
        self.times.append(time.perf_counter() - self._started)

    def before_val(self, runner: Runner) -> None:
        self._measure()
        self.measured = True

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = metrics

    def after_train(self, runner: Runner) -> None:
        if self.metrics is None:  # resumed from the last checkpoint, after training and before scoring
            runner.val_loop.run()
        [hook] = [hook for hook in runner.hooks if isinstance(hook, TuneHook)]
        assert hook.selection is not None
        found = dict(
            metrics={name: float(value) for name, value in (self.metrics or {}).items()},
            **_counts(unwrapped(runner.model), self.target, hook.selection),
            step_s=median(self.times) if self.times else None,
            peak_bytes=self.peak,
            iterations=runner.iter,
            **_circumstances(runner),
        )
        write_json(self.path, {**self.facts, **found})

    def _measure(self) -> None:
        """Record the peak memory so far, unless a validation may have raised it."""
        if not self.measured:
            cuda = torch.cuda.is_available()
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() if cuda else peak_resident())


def check_rates(runner: Runner, target: str, expected: float) -> None:
    """Check that every trained parameter of the backbone has the base learning rate ``expected``.

    Raises:
        ValueError: If a group of the optimizer has another rate.
    """
    model = unwrapped(runner.model)
    inside = {id(value) for value in find_backbone(model, target).parameters()}
    outside = {id(value) for value in model.parameters()} - inside
    for group in runner.optim_wrapper.optimizer.param_groups:
        rate = group.get('initial_lr', group['lr'])
        # The values of chosen connections belong to the backbone but are no parameters of the model.
        if any(id(value) not in outside for value in group['params']) and abs(rate / expected - 1) > 1e-6:
            raise ValueError(
                f'parameters of {target} train at {rate:g} instead of the compared rate {expected:g}: another entry of '
                f'paramwise_cfg in the config sets it; let the entries for the backbone begin with {target!r}'
            )


def _counts(model: nn.Module, target: str, selection: Selection) -> dict[str, int]:
    whole = count_whole(count_parts(model, target, selection))
    inner = count_backbone(model, target, selection)
    return dict(trained=whole.trained, total=whole.total, backbone_trained=inner.trained, backbone_total=inner.total)


def _circumstances(runner: Runner) -> dict[str, Any]:
    """Return machine, commit, threads and versions."""
    device = str(next(runner.model.parameters()).device)
    versions = dict(python=platform.python_version(), mmengine=mmengine.__version__, mmcv=mmcv.__version__)
    loaded = {name: sys.modules[name].__version__ for name in LIBRARIES if name in sys.modules}
    return {**machine_header(device), **versions, **loaded}


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
