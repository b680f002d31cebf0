"""Optimizers of a tuned model: built before it, they take it over; built afterwards, their steps are watched."""

from __future__ import annotations

import gc
import sys
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mmgps.sparse import SparseTraining, unwatch_steps, watch_steps
from mmgps.tuning import (
    FirstIteration,
    Trained,
    UntrainedError,
    check_held,
    held_by,
    kept_elsewhere,
    neutralize_unused,
    unused_message,
)
from mmgps.utils.text import listed

from .processes import in_processes

if TYPE_CHECKING:
    from .tuned import Tuned

FSDP = ('FSDPModule', 'FullyShardedDataParallel')
"""Classes of ``torch.distributed.fsdp``: of ``fully_shard``, which older versions do not have, and of FSDP1."""


def take_over(
    optimizers: Sequence[Optimizer],
    frozen: Iterable[nn.Parameter],
    training: SparseTraining,
    added: Mapping[nn.Parameter, list[nn.Parameter]],
) -> None:
    """Remove frozen parameters from ``optimizers`` and add the trained ones.

    Parameter groups are edited in place, so schedulers keep pointing at them.

    Args:
        optimizers: Optimizers that were built for all parameters of the model.
        frozen: Parameters to remove.
        training: Training of the selected connections, whose parameters replace their weights.
        added: Maps a parameter to new ones, which join its group unless a group holds them already.

    Raises:
        ValueError: If no optimizer holds the parameter that a new one should join; if an optimizer keeps its
            parameters outside of its groups; if one that creates its state at construction cannot be rebuilt for its
            new parameters; or if one would step selected connections otherwise than their full weight.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    heirs = _new_members(groups, added)
    replaced = {id(value) for value in training.replacements()}
    for optimizer in optimizers:
        _check_groups(optimizer, replaced | {at for at, new in heirs.items() if new})
        if replaced & set(map(id, held_by(optimizer))):
            training.check_optimizer(optimizer)
    dropped = {id(value) for value in frozen} | replaced
    for old, new in training.replacements().items():
        heirs.setdefault(id(old), []).append(new)
    for group in groups:
        group['params'][:] = _kept(group['params'], dropped, heirs)
    for optimizer in optimizers:
        _renew_state(optimizer)


def _check_groups(optimizer: Optimizer, followed: Collection[int]) -> None:
    """Refuse an optimizer that would not notice new parameters in place of those with the ids ``followed``."""
    kept = kept_elsewhere(optimizer)
    if kept and any(id(value) in followed for value in held_by(optimizer)):
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
    values: Sequence[nn.Parameter], dropped: Collection[int], heirs: Mapping[int, list[nn.Parameter]]
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


class StepHooks:
    """Calls the training of a :class:`Tuned` around each step of any optimizer that holds parameters of its model.

    With a closure, the training is called once the closure has made the gradients. The first iteration is checked.

    Args:
        tuned: The tuned model, which this does not keep alive.
        first: Watches its first iteration.
    """

    def __init__(self, tuned: Tuned, first: FirstIteration) -> None:
        self._tuned = weakref.ref(tuned)
        self._first: FirstIteration | None = first
        self._concerned: weakref.WeakKeyDictionary[Optimizer, tuple[int, bool]] = weakref.WeakKeyDictionary()
        self._seen: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._in_first_round, self._started_alone = True, not in_processes()
        watch_steps(self)

    def close(self) -> None:
        """Watch no more."""
        unwatch_steps(self)
        if self._first is not None:
            self._first.close()
            self._first = None

    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tuned = self._tuned()
        if tuned is None or not self._concerns(tuned, optimizer):
            return None
        _, *given = args  # the optimizer itself is the first
        closure = given[0] if given else kwargs.get('closure')
        if closure is None:
            self._before_step(tuned, optimizer)
            return None
        after = partial(_evaluated, closure, partial(self._before_step, tuned, optimizer))
        return ((optimizer, after, *given[1:]), kwargs) if given else (args, {**kwargs, 'closure': after})

    def after(self, optimizer: Optimizer) -> None:
        tuned = self._tuned()
        if tuned is None or not self._concerns(tuned, optimizer):
            return
        tuned.training.after_step()
        if self._first is None:
            return
        done, unused = self._first.finish()
        if unused:
            warnings.warn(unused_message(unused), stacklevel=2)
            neutralize_unused(tuned.model, unused)
        if done:
            self._first = None

    def _before_step(self, tuned: Tuned, optimizer: Optimizer) -> None:
        if tuned.switched_off:
            raise RuntimeError('an optimizer steps within disabled(); leave the context before training')
        if optimizer in self._seen:
            self._in_first_round = False
        else:
            check_unsharded(tuned.model)
            check_optimizer(optimizer, tuned.training)
            if self._in_first_round:
                check_all_held(tuned.model, tuned.trained(), [*self._seen, optimizer], self._started_alone)
            if self._first is not None:
                self._first.add(optimizer)
            self._seen.add(optimizer)
        tuned.training.before_step()

    def _concerns(self, tuned: Tuned, optimizer: Optimizer) -> bool:
        """True if ``optimizer`` holds any parameter of the model."""
        count, found = self._concerned.get(optimizer, (-1, False))
        if count != len(optimizer.param_groups):
            mine = {*map(id, tuned.model.parameters()), *map(id, tuned.training.replacements())}
            found = any(id(value) in mine for value in held_by(optimizer))
            self._concerned[optimizer] = len(optimizer.param_groups), found
        return found


def _evaluated(closure: Callable[[], Any], then: Callable[[], None]) -> Any:
    with torch.enable_grad():
        loss = closure()
    then()
    return loss


def check_unsharded(model: nn.Module) -> None:
    """Make sure that FSDP does not hold ``model`` in parts.

    Raises:
        UntrainedError: If it does.
    """
    loaded = sys.modules.get('torch.distributed.fsdp')
    if loaded is None or not (dist.is_available() and dist.is_initialized()):
        return
    parts = {id(part) for part in model.modules()}
    kinds = [kind for name in FSDP if (kind := getattr(loaded, name, None)) is not None]
    for wrapper in (found for kind in kinds for found in _alive(kind)):
        if any(id(part) in parts for part in wrapper.modules()):
            raise UntrainedError(
                f'FSDP holds the model in parts ({type(wrapper).__name__}), which what mmgps.tune returns does not '
                "follow; use DistributedDataParallel, or mmengine's FlexibleRunner with "
                "strategy=dict(type='mmgps.GPSFSDPStrategy')"
            )


def check_optimizer(optimizer: Optimizer, training: SparseTraining) -> None:
    """Make sure that ``optimizer`` would not step weights of which single connections are trained.

    Raises:
        UntrainedError: If it was built before the model was tuned and holds whole weights.
        ValueError: If it does not treat each number by itself, as a whole matrix may need it.
    """
    held = {id(value) for value in held_by(optimizer)}
    swaps = training.replacements()
    stale = sum(id(weight) in held and id(values) not in held for weight, values in swaps.items())
    if stale:
        raise UntrainedError(
            f'{type(optimizer).__name__} holds {stale} weights of which single connections are trained, and not those '
            'connections: it was built before mmgps.tune; build it afterwards, or call '
            'tuned.take_over([optimizer]) right after mmgps.tune'
        )
    if any(id(values) in held for values in swaps.values()):
        training.check_optimizer(optimizer)


def check_all_held(
    model: nn.Module, trained: Sequence[Trained], stepping: Sequence[Optimizer], started_alone: bool
) -> None:
    """Make sure that optimizers hold all that is trained, each number once, and that DDP reduces all of it.

    Args:
        model: The whole model.
        trained: What is counted as trained.
        stepping: The optimizers that have stepped so far, or are about to. Others that exist may step later.
        started_alone: Training was started before there was a process group.

    Raises:
        UntrainedError: Names the tensors that are not held, held twice, or unknown to DDP.
    """
    held = {id(value) for optimizer in stepping for value in held_by(optimizer)}
    lost = [entry for entry in trained if id(entry.value) not in held]
    if lost:
        others = {id(value) for optimizer in _alive(Optimizer) for value in held_by(optimizer)}
        nowhere = [entry for entry in lost if id(entry.value) not in others]
        if nowhere:
            check_held(nowhere, [])
    gone = set(map(id, lost))
    if len(lost) < len(trained) or not trained:
        check_held([entry for entry in trained if id(entry) not in gone], stepping)
    if in_processes():
        _check_reduced(model, trained, started_alone)


def _check_reduced(model: nn.Module, trained: Sequence[Trained], started_alone: bool) -> None:
    parts = {id(part) for part in model.modules()}
    for wrapper in _alive(DistributedDataParallel):
        known = getattr(wrapper, '_module_parameters', None)
        if known is None or not any(id(part) in parts for part in wrapper.module.modules()):
            continue
        known = set(map(id, known))
        lost = [entry.name for entry in trained if id(entry.value) not in known]
        if lost:
            raise UntrainedError(
                f'DistributedDataParallel does not reduce {len(lost)} trained tensors: {listed(lost)}; it wrapped the '
                'model before mmgps.tune; wrap it afterwards'
            )
        whole = [entry.name for entry in trained if entry.chosen and entry.layer is not None]
        if whole and started_alone:
            raise UntrainedError(
                f'DistributedDataParallel reduces {len(whole)} whole weights of which connections are trained: '
                f'{listed(whole)}; mmgps.tune ran before the process group was there; call it afterwards (in Lightning '
                'in configure_model)'
            )


def _alive(kind: type[Any]) -> list[Any]:
    """The objects of ``kind`` that the program has."""
    return [found for found in gc.get_objects() if issubclass(type(found), kind)]
