"""Settings of a run that affect how it continues, as plain values for a checkpoint."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_world_size
from mmengine.optim import _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler, DataLoader

from ..optim import wrappers_of
from .loaders import number_of_batches
from .seeding import SeededBatches

LONGEST = 16
"""Length up to which a list is recorded in full."""
NOT_SETTINGS = {'dataset', 'sampler', 'seed', 'epoch', 'rank', 'world_size', 'num_samples', 'total_size', 'size'}
"""Attributes of samplers that repeat other entries, or record the position in a pass."""


@dataclass(frozen=True)
class RunSettings:
    """Settings that a resumed run compares with its checkpoint, see :mod:`mmgps.engine.resuming.resumption`.

    Args:
        loop: Unit that the training loop counts, ``epochs`` or ``iterations``.
        length: Epochs or iterations of the full run.
        iterations: Iterations of the full run.
        epoch_length: Iterations of an epoch.
        data: Data set, batch size, processes and samplers, by name.
        optimizers: Class of each optimizer.
        accumulation: ``accumulative_counts`` of each optimizer.
        schedulers: Class and attributes of each scheduler before the first step.
        groups: For each optimizer, the settings of its parameter groups before the first step.
    """

    loop: str
    length: int
    iterations: int
    epoch_length: int
    data: dict[str, Any]
    optimizers: list[str]
    accumulation: list[int]
    schedulers: list[tuple[str, dict[str, Any]]]
    groups: list[list[dict[str, Any]]]

    @classmethod
    def of(cls, runner: Runner) -> RunSettings:
        """Read the settings of ``runner`` before it loads or trains; they are the same on every process."""
        loop: Any = runner.train_loop
        wrappers = wrappers_of(runner.optim_wrapper)
        unit, _, length = place_in(loop)
        own = cls(
            f'{unit}s',
            length,
            loop.max_iters,
            number_of_batches(loop.dataloader) or 0,
            data_settings(loop.dataloader),
            [type(wrapper.optimizer).__name__ for wrapper in wrappers],
            [getattr(wrapper, '_accumulative_counts', 1) for wrapper in wrappers],
            [(type(each).__name__, described(state_of(each))) for each in schedulers_of(runner)],
            [[described(settings_of(group)) for group in wrapper.param_groups] for wrapper in wrappers],
        )
        shared = [own]
        broadcast_object_list(shared)
        return shared[0]

    def pack(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def unpack(cls, packed: Mapping[str, Any] | None) -> RunSettings | None:
        """Invert :meth:`pack`; None if an entry is missing, as in checkpoints of another release."""
        names = [field.name for field in fields(cls)]
        if packed is None or any(name not in packed for name in names):
            return None
        return cls(**{name: packed[name] for name in names})


def place_in(loop: Any) -> tuple[str, int, int]:
    """Unit that a training loop counts, the units that it has trained, and the units of the full run."""
    if isinstance(loop, IterBasedTrainLoop):
        return 'iteration', loop.iter, loop.max_iters
    return 'epoch', loop.epoch, loop.max_epochs


def data_settings(loader: DataLoader) -> dict[str, Any]:
    """Settings that affect which samples form a batch, and their order."""
    batches: Any = loader.batch_sampler
    if isinstance(batches, SeededBatches):
        batches = batches.batches
    sampler = getattr(batches, 'sampler', None)
    found = {
        'data set': _data_set(loader.dataset),
        'batch_size': getattr(batches, 'batch_size', loader.batch_size),
        'drop_last': getattr(batches, 'drop_last', None),
        'processes': get_world_size(),
        'sampler': _named(sampler),
    }
    if type(batches) is not BatchSampler:
        found['batch_sampler'] = _named(batches)
    return {**found, 'iterations of an epoch': number_of_batches(loader)}


def schedulers_of(runner: Runner) -> list[_ParamScheduler]:
    """Schedulers of all optimizers, in the order of a checkpoint."""
    return flat(runner.param_schedulers)


def flat(schedulers: Any) -> list[Any]:
    """Flatten schedulers that are given per optimizer, or for one optimizer; None is no scheduler."""
    parts = schedulers.values() if isinstance(schedulers, dict) else [schedulers or []]
    return [each for part in parts for each in part]


def state_of(scheduler: _ParamScheduler) -> dict[str, Any]:
    """Attributes of a scheduler without its optimizer."""
    return {name: value for name, value in vars(scheduler).items() if name != 'optimizer'}


def structured_states(runner: Runner) -> Any:
    """Copy the states of all schedulers, in the form that mmengine loads."""
    built: Any = runner.param_schedulers
    if isinstance(built, dict):
        return {name: [copy.deepcopy(state_of(each)) for each in part] for name, part in built.items()}
    return [copy.deepcopy(state_of(each)) for each in built or []]


def needs_scores(scheduler: Any) -> bool:
    """Return True if ``scheduler`` steps by validation scores."""
    return bool(getattr(scheduler, 'need_val_args', False))


def scheduled_entries(names: Sequence[str]) -> set[str]:
    """Entries of a parameter group that schedulers of the parameters ``names`` set."""
    entries = {'lr', *names}
    return {*entries, *(f'initial_{name}' for name in entries), *(['betas'] if 'momentum' in names else [])}


def settings_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group without its parameters."""
    return {name: value for name, value in group.items() if name not in ('params', 'param_names')}


def groups_of(runner: Runner) -> list[list[dict[str, Any]]]:
    """Parameter groups of each optimizer, with mmengine's group of base settings."""
    return [wrapper.param_groups for wrapper in wrappers_of(runner.optim_wrapper)]


def described(value: Any) -> Any:
    """Describe ``value`` by plain numbers, strings, lists and dicts, equal for equal values.

    A digest describes tensors, arrays and long lists; their class describes other objects.
    """
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key if isinstance(key, int | str) else str(key): described(part) for key, part in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = 'tensor' if isinstance(value, torch.Tensor) else 'array'
        return f'{kind} of {list(value.shape)} {digest(value.reshape(-1).tolist())}'
    if isinstance(value, list | tuple):
        parts = [described(part) for part in value]
        return parts if len(parts) <= LONGEST else f'{len(parts)} entries {digest(parts)}'
    return type(value).__name__


def changed_entries(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List both values of each entry that differs, as text."""
    names = dict.fromkeys((*then, *now))
    return [f'{name}: {then.get(name)} -> {now.get(name)}' for name in names if then.get(name) != now.get(name)]


def digest(value: Any) -> str:
    """Short digest of ``value`` by its ``repr``."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def _named(sampler: Any) -> str:
    """Describe the class and settings of a sampler."""
    found = {
        name: described(value)
        for name, value in getattr(sampler, '__dict__', {}).items()
        if name not in NOT_SETTINGS and not name.startswith('_') and described(value) != type(value).__name__
    }
    return f'{type(sampler).__name__}({", ".join(f"{name}={value}" for name, value in found.items())})'


def _data_set(dataset: Any) -> str:
    """Describe the class and number of samples, also of the parts of a data set."""
    parts = getattr(dataset, 'datasets', None)
    parts = parts if isinstance(parts, list | tuple) else [getattr(dataset, 'dataset', None)]
    known = [part for part in parts if hasattr(part, '__len__') and hasattr(part, '__getitem__')]
    inner = f' of {", ".join(map(_data_set, known))}' if known else ''
    return f'{len(dataset)} samples in {type(dataset).__name__}{inner}'
