"""Checkpoints that appear whole or not at all, and hold no NaN."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import torch
from mmengine._strategy import FSDPStrategy, SingleDeviceStrategy
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmgps.utils.atomic_file import atomic_file

from .selection_pass import unwrapped


class DivergedError(ArithmeticError):
    """Training has made parameters that are NaN or infinite."""


def save_whole(runner: Runner) -> None:
    """Make ``runner`` save to a file beside each checkpoint, which takes its place when it is whole.

    Strategies of a ``FlexibleRunner`` that save folders, in parts by each process, are left as they are.
    """
    if _saves_one_file(runner) and 'save_checkpoint' not in vars(runner):
        vars(runner)['save_checkpoint'] = _whole(runner.save_checkpoint)


def _saves_one_file(runner: Any) -> bool:
    if isinstance(runner, Runner):
        return True
    return isinstance(runner.strategy, SingleDeviceStrategy) and not isinstance(runner.strategy, FSDPStrategy)


def _whole(save: Any) -> Any:
    @functools.wraps(save)
    def save_checkpoint(out_dir: str, filename: str, *args: Any, **options: Any) -> None:
        if '://' in out_dir or not is_main_process():
            return save(out_dir, filename, *args, **options)
        target = Path(out_dir) / filename
        for left in target.parent.glob('.*.pth.part'):  # by a run that was killed; one at a time holds the folder
            left.unlink()
        try:
            with atomic_file(target, alone=True) as partial:
                save(str(target.parent), partial.name, *args, **options)
        except OSError as error:
            raise OSError(
                error.errno,
                f'{error.strerror or error}; the checkpoint before it is untouched, so mend the cause and go on with '
                '--resume',
            ) from error

    return save_checkpoint


def check_loss(runner: Runner, outputs: Any) -> None:
    """Stop a run that a loss of NaN or infinity has spoilt. One that the loss scaler skipped has spoilt nothing.

    Raises:
        DivergedError: Names loss and parameter.
    """
    loss = outputs.get('loss') if isinstance(outputs, dict) else None
    if loss is not None and not math.isfinite(value := float(torch.as_tensor(loss).detach())):
        check_finite(runner, f'the loss is {value} in iteration {runner.iter + 1} and ')


def check_finite(runner: Runner, cause: str = '', kind: str = 'checkpoint') -> None:
    """Stop a run before a checkpoint or a delta of it would take the place of one to go on from.

    Args:
        runner: Of the run.
        cause: Begins the message.
        kind: What would be written.

    Raises:
        DivergedError: Names the first parameter that holds NaN or infinity, or the first buffer that holds NaN, such as
            the statistics of a norm.
    """
    model = unwrapped(runner.model)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    bad = [name for name, value in parameters.items() if not torch.isfinite(value).all()]
    found = f'{len(bad)} of {len(parameters)} parameters hold NaN or infinity'
    if not bad:  # infinity may stand in a buffer by right, as in the mask of an attention
        bad = [name for name, value in buffers.items() if torch.isnan(value).any()]
        found = f'{len(bad)} of {len(buffers)} buffers hold NaN'
    if bad:
        raise DivergedError(
            f'{cause}{found}, first {bad[0]!r}: training has diverged. No {kind} of it is written; lower the learning '
            'rate or set clip_grad of optim_wrapper, and go on from the last checkpoint with --resume, or start anew'
        )
