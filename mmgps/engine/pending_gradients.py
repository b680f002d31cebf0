"""What a checkpoint within an accumulation holds besides: the gradients summed so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch import nn

from .optim import wrappers_of

KEY = 'mmgps_gradients'


def pack_gradients(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Put gradients that no step has used yet into ``checkpoint``.

    Each of several processes has its own, and one of them writes: there a warning says that they are lost.
    """
    if not any(map(_is_within, wrappers_of(runner.optim_wrapper))):
        return
    if get_world_size() > 1:
        runner.logger.warning(
            'this checkpoint lies within an accumulation, and the gradients that each process has summed so far are '
            'not in it: a run resumed from it will differ from this one; let its interval be a multiple of '
            'accumulative_counts'
        )
        return
    checkpoint[KEY] = [None if each.grad is None else each.grad.detach().cpu() for each in _held(runner)]


def restore_gradients(runner: Runner, gradients: Sequence[Any]) -> None:
    """The gradients that :func:`pack_gradients` found, when the optimizers hold what is trained."""
    for value, gradient in zip(_held(runner), gradients, strict=True):
        value.grad = None if gradient is None else gradient.to(value.device)


def _is_within(wrapper: Any) -> bool:
    return getattr(wrapper, '_inner_count', 0) % getattr(wrapper, '_accumulative_counts', 1) != 0


def _held(runner: Runner) -> list[nn.Parameter]:
    groups = [group for wrapper in wrappers_of(runner.optim_wrapper) for group in wrapper.optimizer.param_groups]
    return [value for group in groups for value in group['params']]
