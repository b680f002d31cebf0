"""Gradients that are pending in a checkpoint within an accumulation, of every process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import gather_object, get_rank, get_world_size
from mmengine.runner import Runner
from torch import Tensor, nn

from ..optim import wrappers_of

KEY = 'mmgps_gradients'

Gradients = list[Tensor | None]


@contextmanager
def gathered_gradients(runner: Runner) -> Iterator[None]:
    """Context in which checkpoints hold the gradients of all processes; every process must enter it."""
    if _is_pending(runner) and get_world_size() > 1:
        vars(runner)[KEY] = gather_object(_summed(runner))
    try:
        yield
    finally:
        vars(runner).pop(KEY, None)


def pack_gradients(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Add the gradients that no step has used yet to a ``checkpoint``: a list for each process.

    Outside of :func:`gathered_gradients` the writing process has only its own; with several processes a warning says
    that the checkpoint holds none.
    """
    if 'optimizer' not in checkpoint or not _is_pending(runner):
        return
    if get_world_size() > 1 and KEY not in vars(runner):
        runner.logger.warning(
            'this checkpoint lies within an accumulation, and the gradients that each process has summed so far are '
            "not in it: a run resumed from it will differ from this one; let mmengine's CheckpointHook write it, or "
            'write it after a multiple of accumulative_counts iterations'
        )
        return
    checkpoint[KEY] = vars(runner).get(KEY) or [_summed(runner)]


def restore_gradients(runner: Runner, found: Sequence[Gradients]) -> None:
    """Restore the gradients of :func:`pack_gradients`, once the optimizers hold the trained parameters.

    If the number of processes has changed, each process gets the mean of all.
    """
    own = found[get_rank()] if len(found) == get_world_size() else [_mean(parts) for parts in zip(*found, strict=True)]
    for value, gradient in zip(_held(runner), own, strict=True):
        value.grad = None if gradient is None else gradient.to(value.device)


def _mean(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.stack(present).sum(0) / len(parts) if present else None


def _is_pending(runner: Runner) -> bool:
    return any(
        getattr(wrapper, '_inner_count', 0) % getattr(wrapper, '_accumulative_counts', 1) != 0
        for wrapper in wrappers_of(runner.optim_wrapper)
    )


def _summed(runner: Runner) -> Gradients:
    return [None if value.grad is None else value.grad.detach().cpu() for value in _held(runner)]


def _held(runner: Runner) -> list[nn.Parameter]:
    groups = [group for wrapper in wrappers_of(runner.optim_wrapper) for group in wrapper.optimizer.param_groups]
    return [value for group in groups for value in group['params']]
