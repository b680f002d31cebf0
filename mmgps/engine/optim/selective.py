"""Optimizer wrappers that step only the selected connections, and the edit of an optimizer's groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.optim import Optimizer

from mmgps.registry import OPTIM_WRAPPERS
from mmgps.sparse import SparseTraining
from mmgps.sparse.compact import average_gradients
from mmgps.tuning import FirstIteration, kept_elsewhere


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


def hold_only_trained(
    optim_wrapper: OptimWrapper | OptimWrapperDict,
    frozen: Iterable[nn.Parameter],
    sparse: SparseTraining,
    needed: bool,
    added: Mapping[nn.Parameter, list[nn.Parameter]],
) -> None:
    """Remove frozen parameters from the optimizers, add new ones, and connect each wrapper to the sparse training.

    Parameter groups are edited in place, so schedulers keep pointing at them.

    Args:
        optim_wrapper: One wrapper or several, with optimizers that were built for all parameters.
        frozen: Parameters to remove.
        sparse: Training of the selected connections.
        needed: True if connections are selected, which a plain wrapper cannot train.
        added: Maps a parameter to new ones, which join its group unless a group holds them already.

    Raises:
        TypeError: For a plain wrapper where a selective one is needed.
        ValueError: If no optimizer holds the parameter that a new one should join; if an optimizer keeps its
            parameters outside of its groups; if one that creates its state at construction cannot be rebuilt for its
            new parameters; or if one would step selected connections otherwise than their full weight.
    """
    wrappers = wrappers_of(optim_wrapper)
    for wrapper in wrappers:
        if needed and not isinstance(wrapper, SelectiveStep):
            raise TypeError(_refusal(wrapper))
    groups = [group for wrapper in wrappers for group in wrapper.optimizer.param_groups]
    heirs = _new_members(groups, added)
    for wrapper in wrappers:
        _check_groups(wrapper.optimizer, {*map(id, sparse.replacements()), *(at for at, new in heirs.items() if new)})
        held = {id(value) for group in wrapper.optimizer.param_groups for value in group['params']}
        if any(id(old) in held for old in sparse.replacements()):
            sparse.check_optimizer(wrapper.optimizer)
    dropped = {id(value) for value in frozen}
    for old, new in sparse.replacements().items():
        dropped.add(id(old))
        heirs.setdefault(id(old), []).append(new)
    for group in groups:
        group['params'][:] = _kept(group['params'], dropped, heirs)
    for wrapper in wrappers:
        _renew_state(wrapper.optimizer)
        if isinstance(wrapper, SelectiveStep):
            wrapper.sparse = sparse


def _refusal(wrapper: OptimWrapper) -> str:
    name = 'GPSAmpOptimWrapper' if isinstance(wrapper, AmpOptimWrapper) else 'GPSOptimWrapper'
    return (
        f'{type(wrapper).__name__} would train every number of a layer; '
        f"set optim_wrapper.type to 'mmgps.{name}' in the config, which takes the same arguments"
    )


def _check_groups(optimizer: Optimizer, followed: set[int]) -> None:
    """Refuse an optimizer that would not notice new parameters in place of those with the ids ``followed``."""
    kept = kept_elsewhere(optimizer)
    if kept and any(id(value) in followed for group in optimizer.param_groups for value in group['params']):
        raise ValueError(
            f'{type(optimizer).__name__} keeps its parameters in {kept!r} besides param_groups, and would go on '
            'stepping those: parameters that take their places or join them would not move; choose AdamW or the like, '
            "or set sparse=dict(type='mmgps.MaskedTraining') of the hook for single connections, and "
            "backbone=dict(type='mmgps.TunedBackbone', ...) for a method that adds modules"
        )


def _new_members(
    groups: Sequence[Mapping[str, Any]], added: Mapping[nn.Parameter, list[nn.Parameter]]
) -> dict[int, list[nn.Parameter]]:
    """Map the id of each parameter to the members of ``added`` that no group holds yet."""
    held = {id(value) for group in groups for value in group['params']}
    heirs = {id(weight): [value for value in new if id(value) not in held] for weight, new in added.items()}
    lost = {at: new for at, new in heirs.items() if new and at not in held}
    if lost:
        raise ValueError(
            f'the optimizer holds none of the {len(lost)} layers that {sum(map(len, lost.values()))} new tensors '
            "belong to; let it hold the whole backbone, or put the method in place with type='mmgps.TunedBackbone'"
        )
    return heirs


def _kept(
    values: Sequence[nn.Parameter], dropped: set[int], heirs: Mapping[int, list[nn.Parameter]]
) -> list[nn.Parameter]:
    kept = []
    for value in values:
        kept += [] if id(value) in dropped else [value]
        kept += heirs.get(id(value), [])
    return kept


def _renew_state(optimizer: Optimizer) -> None:
    """Rebuild the state of an optimizer that creates it at construction, as Adagrad does."""
    if not optimizer.state:
        return
    kind = type(optimizer)
    try:
        anew = kind([dict(group) for group in optimizer.param_groups], **optimizer.defaults)
    except TypeError as error:
        raise ValueError(
            f'{kind.__name__} creates its state at construction, before the trained parameters are known, and cannot '
            f'be rebuilt with its defaults ({error}); choose one that creates it at the first step, such as AdamW'
        ) from error
    optimizer.state.clear()
    optimizer.state.update(anew.state)
