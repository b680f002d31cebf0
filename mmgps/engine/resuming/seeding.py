"""Random numbers as a function of the position in a run, not of its past.

A resumed run cannot restore the state of generators in the worker processes of a killed run. So no state is restored:
the augmentation of each sample and the dropout of each iteration draw from generators that are seeded by
(run seed, position).
"""

from __future__ import annotations

import collections
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import broadcast_object_list
from torch import nn
from torch.utils.data import BatchSampler

ORDER = 0x0DE5
"""Separates the seed of a pass's order from other seeds of that pass."""
WITHOUT_MEMORY = (DefaultSampler, InfiniteSampler)
"""Samplers whose pass depends on seed and epoch alone."""


def mixed_seed(*parts: int) -> int:
    """Mix non-negative integers to a 32-bit seed by NumPy's ``SeedSequence``."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which augmentations draw from seeded generators; afterwards the former state is restored."""
    before = _global_state()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        _set_global_state(before)


class SeededIndex(int):
    """An index into a data set that carries the seed of its augmentation into the worker process."""

    seed: int

    def __new__(cls, index: int, seed: int) -> SeededIndex:
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return SeededIndex, (int(self), self.seed)


class SeededDataset:
    """A data set whose augmentation depends only on the :class:`SeededIndex` of a sample.

    Attributes are read from ``dataset`` and written to it.
    """

    def __init__(self, dataset: Any) -> None:
        object.__setattr__(self, 'wrapped', dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, SeededIndex):
            return self.wrapped[index]
        with seeded(index.seed):
            return self.wrapped[int(index)]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Get samples one by one: a loader would prefer ``__getitems__`` of ``torch.utils.data.Subset``."""
        return [self[index] for index in indices]

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        if name == 'wrapped':
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)

    def __getstate__(self) -> Any:
        return self.wrapped

    def __setstate__(self, dataset: Any) -> None:
        object.__setattr__(self, 'wrapped', dataset)


class SeededBatches:
    """A batch sampler whose passes depend only on the run's seed and on earlier passes.

    Each index carries the seed of its augmentation. Samplers that draw from the global generators of Python, NumPy and
    torch draw from generators of the pass instead, seeded by (seed, epoch), so neither the model nor the time of
    prefetching affects them. Generators that a sampler owns are seeded once, at the start. The order is the same on
    every process, which mmengine's samplers require; augmentation differs.

    Samplers of mmengine need only the epoch to find a position. Any other sampler may remember its draws, so it draws
    from the start, without loading a sample.

    Args:
        batches: Batch sampler with its sampler as ``sampler``.
        seed: Run seed, the same on every process.
        rank: Rank of this process.
    """

    def __init__(self, batches: Any, seed: int, rank: int) -> None:
        self.batches, self.seed, self.rank, self.epoch = batches, seed, rank, 0
        self._remembers = type(batches) is not BatchSampler or type(batches.sampler) not in WITHOUT_MEMORY
        self._started: Iterator[tuple[int, Any]] | None = None
        for owner in (batches, batches.sampler):
            if hasattr(owner, 'seed'):
                owner.seed = seed
            _seed_own_generators(owner, seed)

    @property
    def sampler(self) -> SeededBatches:
        """This object, since mmengine calls ``batch_sampler.sampler.set_epoch``."""
        return self

    @property
    def infinite(self) -> bool:
        return isinstance(self.batches.sampler, InfiniteSampler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.batches.sampler, 'set_epoch'):
            self.batches.sampler.set_epoch(epoch)

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next pass be number ``epoch``, without its first ``batch`` batches."""
        for earlier in range(epoch if self._remembers else 0):
            self.set_epoch(earlier)
            collections.deque(self._drawn(), maxlen=0)
        self.set_epoch(epoch)
        self._started = self._drawn(batch)

    def start_after(self, iterations: int) -> None:
        """Let the next pass continue after ``iterations`` batches of consecutive passes."""
        if not self._remembers:
            self.start_at(*divmod(iterations, iterations + 1 if self.infinite else len(self)))
            return
        self.set_epoch(0)
        self._started = self._drawn()
        for _ in range(iterations):
            if next(self._started, None) is None:
                self.set_epoch(self.epoch + 1)
                self._started = self._drawn()
                next(self._started)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        # A generator, since a loader with workers asks for an iterator twice and draws from the second.
        drawn, self._started = self._started or self._drawn(), None
        epoch = self.epoch
        for position, batch in drawn:
            yield [
                SeededIndex(index, mixed_seed(self.seed, self.rank, epoch, at))
                for at, index in enumerate(batch, position)
            ]

    def __len__(self) -> int:
        return len(self.batches)

    def _drawn(self, skip: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield the batches of a pass after ``skip``, each with the position of its first sample."""
        if self.infinite:
            self.batches.sampler.indices = self.batches.sampler._indices_of_rank()
        drawn = (
            _with_own_state(self.batches, mixed_seed(self.seed, self.epoch, ORDER)) if self._remembers else self.batches
        )
        position = 0
        for number, batch in enumerate(drawn):
            if number >= skip:
                yield position, batch
            position += len(batch)


def _with_own_state(draws: Iterable[Any], seed: int) -> Iterator[Any]:
    """Iterate over ``draws`` under a separate global random state."""
    iterator = None
    with seeded(seed):
        state = _global_state()
    while True:
        before = _global_state()
        _set_global_state(state)
        try:
            iterator = iter(draws) if iterator is None else iterator
            drawn = next(iterator)
        except StopIteration:
            return
        finally:
            state = _global_state()
            _set_global_state(before)
        yield drawn


def _global_state() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def _set_global_state(state: tuple[Any, Any, torch.Tensor]) -> None:
    python, numpy, cpu = state
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)


def _seed_own_generators(owner: Any, seed: int) -> None:
    """Seed the generators among the attributes of ``owner``."""
    for name, value in list(getattr(owner, '__dict__', {}).items()):
        if isinstance(value, torch.Generator):
            value.manual_seed(seed)
        elif isinstance(value, np.random.Generator):
            setattr(owner, name, np.random.Generator(type(value.bit_generator)(seed)))
        elif isinstance(value, np.random.RandomState | random.Random):
            value.seed(seed)


def run_seed(seed: int | None) -> int:
    """Seed of process 0, which a checkpoint records as the seed of the run."""
    shared = [seed]
    broadcast_object_list(shared)
    return int(shared[0] or 0)


class RandomSnapshot:
    """Snapshot of the random state of Python, NumPy and torch, on the CPU and the CUDA devices of ``model``."""

    def __init__(self, model: nn.Module) -> None:
        devices = {value.device for value in model.parameters() if value.is_cuda}
        self._global = _global_state()
        self._devices = {device: torch.cuda.get_rng_state(device) for device in devices}

    def restore(self) -> None:
        _set_global_state(self._global)
        for device, state in self._devices.items():
            torch.cuda.set_rng_state(state, device)
