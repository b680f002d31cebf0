"""Optimizer wrappers that step only the selected connections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import nn

from mmgps.registry import OPTIM_WRAPPERS
from mmgps.sparse import SparseTraining


class SelectiveStep:
    """Mixin of an ``OptimWrapper``: mask, then (unscale, clip, step) as the wrapper does, then restore.

    Masking comes before unscaling, so that an overflow in a number that is not trained skips no step.
    """

    sparse: SparseTraining | None = None
    """Set by :class:`mmgps.engine.TuneHook`."""

    def step(self, **kwargs: Any) -> None:
        if self.sparse is None:
            raise RuntimeError(
                f'{type(self).__name__} does not know what is selected; '
                "add dict(type='mmgps.GPSHook') to custom_hooks of the config"
            )
        self.sparse.before_step()
        super().step(**kwargs)  # type: ignore[misc]
        self.sparse.after_step()


@OPTIM_WRAPPERS.register_module()
class GPSOptimWrapper(SelectiveStep, OptimWrapper):
    """``OptimWrapper`` for :class:`mmgps.engine.GPSHook`; takes the same arguments."""


@OPTIM_WRAPPERS.register_module()
class GPSAmpOptimWrapper(SelectiveStep, AmpOptimWrapper):
    """``AmpOptimWrapper`` for :class:`mmgps.engine.GPSHook`; takes the same arguments."""


def wrappers_of(optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    """The single wrappers within ``optim_wrapper``."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return [wrapper for name in optim_wrapper for wrapper in wrappers_of(optim_wrapper[name])]
    return [optim_wrapper]


def hold_only_trained(
    wrapper: OptimWrapper, frozen: Iterable[nn.Parameter], sparse: SparseTraining, needed: bool
) -> None:
    """Take frozen parameters out of the optimizer and tell the wrapper what to do at each step.

    Parameter groups are edited in place: schedulers go on pointing at them.

    Args:
        wrapper: A wrapper whose optimizer was built for all parameters.
        frozen: What it shall not hold.
        sparse: What trains the chosen connections.
        needed: Whether there are chosen connections, which a plain wrapper cannot train.

    Raises:
        TypeError: For a plain wrapper where a selective one is needed.
    """
    selective = isinstance(wrapper, SelectiveStep)
    if needed and not selective:
        name = 'GPSAmpOptimWrapper' if isinstance(wrapper, AmpOptimWrapper) else 'GPSOptimWrapper'
        raise TypeError(
            f'{type(wrapper).__name__} would train every number of a layer; '
            f"set optim_wrapper.type to 'mmgps.{name}' in the config, which takes the same arguments"
        )
    dropped = {id(value) for value in frozen}
    replaced = {id(old): new for old, new in sparse.replacements().items()}
    for group in wrapper.optimizer.param_groups:
        group['params'][:] = _kept(group['params'], dropped, replaced)
    if selective:
        wrapper.sparse = sparse


def _kept(values: Sequence[nn.Parameter], dropped: set[int], replaced: dict[int, nn.Parameter]) -> list[nn.Parameter]:
    return [replaced.get(id(value), value) for value in values if id(value) not in dropped]
