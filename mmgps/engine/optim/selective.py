"""Optimizer wrappers that step only the selected connections, and the edit of an optimizer's groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from mmgps.registry import OPTIM_WRAPPERS
from mmgps.sparse import SparseTraining
from mmgps.sparse.compact import average_gradients
from mmgps.tuned import Tuned
from mmgps.tuning import FirstIteration


class SelectiveStep:
    """Mixin for an ``OptimWrapper``: mask, then (unscale, clip, step) as the wrapper does, then restore.

    Masking comes before unscaling, so an overflow in a frozen number skips no step.
    """

    sparse: SparseTraining | None = None
    """Set by :class:`mmgps.engine.TuneHook`."""
    averaged: Sequence[nn.Parameter] = ()
    """Parameters whose gradients this wrapper averages over the processes, set by ``GPSFSDPStrategy``."""

    first: FirstIteration | None = None
    """Check of the loss in the first iteration, set by :func:`watch_losses`."""

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        if self.first is not None:
            self.first.check_loss(loss)
        super().backward(loss, **kwargs)  # type: ignore[misc]

    def step(self, **kwargs: Any) -> None:
        if self.sparse is None:
            raise RuntimeError(
                f'{type(self).__name__} does not know what is selected; '
                "add dict(type='mmgps.GPSHook') to custom_hooks of the config"
            )
        average_gradients(self.averaged)
        self.sparse.before_step()
        super().step(**kwargs)  # type: ignore[misc]
        self.sparse.after_step()


@OPTIM_WRAPPERS.register_module()
class GPSOptimWrapper(SelectiveStep, OptimWrapper):
    """``OptimWrapper`` for :class:`mmgps.engine.GPSHook`; takes the same arguments."""


@OPTIM_WRAPPERS.register_module()
class GPSAmpOptimWrapper(SelectiveStep, AmpOptimWrapper):
    """``AmpOptimWrapper`` for :class:`mmgps.engine.GPSHook`; takes the same arguments.

    Raises:
        RuntimeError: On the CPU, where mmengine has no mixed precision.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except AssertionError as error:
            raise RuntimeError(
                f"{error}; to train in float32 set optim_wrapper.type to 'mmgps.GPSOptimWrapper' and leave out "
                'loss_scale, dtype and use_fsdp'
            ) from error


def wrappers_of(optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    """List the single wrappers in ``optim_wrapper``."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return [wrapper for part in optim_wrapper.values() for wrapper in wrappers_of(part)]
    return [optim_wrapper]


def watch_losses(optim_wrapper: OptimWrapper | OptimWrapperDict, first: FirstIteration | None) -> None:
    """Let selective wrappers check each loss by ``first``; None ends the checks."""
    for wrapper in wrappers_of(optim_wrapper):
        if isinstance(wrapper, SelectiveStep):
            wrapper.first = first


def take_over(optim_wrapper: OptimWrapper | OptimWrapperDict, tuned: Tuned) -> None:
    """Let the optimizers hold what ``tuned`` trains, and each selective wrapper train its connections at each step.

    Args:
        optim_wrapper: One wrapper or several, with optimizers that were built for all parameters.
        tuned: The tuned model.

    Raises:
        TypeError: For a plain wrapper where connections are selected.
        ValueError: See :func:`mmgps.tuned.take_over`.
    """
    wrappers = wrappers_of(optim_wrapper)
    for wrapper in wrappers:
        if tuned.selection.connections and not isinstance(wrapper, SelectiveStep):
            raise TypeError(_refusal(wrapper))
    tuned.take_over([wrapper.optimizer for wrapper in wrappers])
    for wrapper in wrappers:
        if isinstance(wrapper, SelectiveStep):
            wrapper.sparse = tuned.training


def _refusal(wrapper: OptimWrapper) -> str:
    name = 'GPSAmpOptimWrapper' if isinstance(wrapper, AmpOptimWrapper) else 'GPSOptimWrapper'
    return (
        f'{type(wrapper).__name__} would train every number of a layer; '
        f"set optim_wrapper.type to 'mmgps.{name}' in the config, which takes the same arguments"
    )
