"""Print the scores of the validation set before and after training in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmgps.registry import HOOKS
from mmgps.selection import preserved
from mmgps.utils.text import text_table

from ..tuned_backbone import unwrapped

CHECKPOINT_KEY = 'mmgps_scores_before'


@HOOKS.register_module()
class BeforeAfterHook(Hook):
    """Validate before the first step, and print the scores from before and after training.

    The scores before training are those of the pre-trained backbone under an untrained head. A resumed run takes them
    from its checkpoint; if that has none, the table shows a dash.

    Raises:
        ValueError: When training starts, if the config has no validation.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.before: dict[str, float] | None = None
        self.after: dict[str, float] = {}

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop) and runner.val_loop is None:
            raise ValueError(
                'mmgps.BeforeAfterHook compares validations and the config has none: set val_dataloader, val_evaluator '
                'and val_cfg, or leave out the hook'
            )

    def before_train(self, runner: Runner) -> None:
        if self.before is None:
            runner.logger.info('validating before training')
            self.before = evaluate(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.after = scalars(metrics or {})

    def after_train(self, runner: Runner) -> None:
        before = {name: f'{value:.2f}' for name, value in (self.before or {}).items()}
        rows = [[name, before.get(name, '-'), f'{after:.2f}'] for name, after in self.after.items()]
        table = text_table(['score', 'before', 'after'], rows)
        runner.logger.info(f'validation set, before and after training\n{table}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHECKPOINT_KEY] = self.before

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            self.before = checkpoint.get(CHECKPOINT_KEY, {})


def check_metrics(runner: Runner) -> None:
    """Let the validation metrics that have a ``check_model`` check the model before training.

    Raises:
        ValueError: If a metric cannot score the predictions of the model, before the first validation would fail.
    """
    loop = runner.val_loop
    for metric in () if loop is None else loop.evaluator.metrics:
        check = getattr(metric, 'check_model', None)
        if check is not None:
            check(unwrapped(runner.model))


@torch.no_grad()
def evaluate(runner: Runner) -> dict[str, float]:
    """Score the model as it is, without validation hooks such as EMA and the best checkpoint."""
    loop = runner.val_loop
    with preserved(runner.model):
        runner.model.eval()
        for batch in loop.dataloader:
            loop.evaluator.process(data_samples=runner.model.val_step(batch), data_batch=batch)
        metrics = loop.evaluator.evaluate(len(loop.dataloader.dataset))
    return scalars(metrics)


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Keep the metrics that are single numbers, not lists, texts or None."""
    found = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in metrics.items()}
    single = {name: value for name, value in found.items() if np.ndim(value) == 0}
    return {name: float(value) for name, value in single.items() if np.asarray(value).dtype.kind in 'biuf'}
