"""Randomness as a function of a position, not of what happened before.

A generator's state cannot be carried from a killed run into a resumed one when it lives in the worker processes of a
data loader. So nothing is carried: every sample's augmentation and every iteration's dropout draw from generators
that are seeded by (run seed, position).
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
"""Sets the seed of a pass's order apart from other seeds of that pass."""
WITHOUT_MEMORY = (DefaultSampler, InfiniteSampler)
"""Samplers whose pass follows from seed and epoch alone."""


def mixed_seed(*parts: int) -> int:
    """A 32-bit seed from a few non-negative integers, by NumPy's ``SeedSequence``."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators that augmentations draw from, and restore them: loading must not move those of the model."""
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
    """A data set whose augmentation depends on nothing but the :class:`SeededIndex` that asks for a sample.

    It stands in for ``dataset`` in every other respect: attributes are read from and written to it.
    """

    def __init__(self, dataset: Any) -> None:
        object.__setattr__(self, 'wrapped', dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, SeededIndex):
            return self.wrapped[index]
        with seeded(index.seed):
            return self.wrapped[int(index)]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """One by one: a loader asks for whole batches where it can, and ``torch.utils.data.Subset`` would give one."""
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
    """A batch sampler of which every pass is a function of the run's seed and of the passes before.

    Each index carries the seed of its augmentation. What the samplers draw from Python's, NumPy's and torch's global
    generators comes from generators of the pass instead, seeded by (seed, epoch), so that neither the model nor the
    time of prefetching moves it. Generators that a sampler owns are seeded once, at the start. The order is the same on
    every process, as mmengine's samplers expect; augmentation differs.

    Samplers of mmengine need nothing but the epoch to find a position. Any other may remember what it drew, so it is
    drawn from the start, without loading anything.

    Args:
        batches: A batch sampler with its sampler as ``sampler``.
        seed: Run seed, the same on every process.
        rank: Process.
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
        """What is told the epoch: mmengine calls ``batch_sampler.sampler.set_epoch``."""
        return self

    @property
    def infinite(self) -> bool:
        return isinstance(self.batches.sampler, InfiniteSampler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.batches.sampler, 'set_epoch'):
            self.batches.sampler.set_epoch(epoch)

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next pass be number ``epoch`` and leave out its first ``batch`` batches."""
        for earlier in range(epoch if self._remembers else 0):
            self.set_epoch(earlier)
            collections.deque(self._drawn(), maxlen=0)
        self.set_epoch(epoch)
        self._started = self._drawn(batch)

    def start_after(self, iterations: int) -> None:
        """Let the next pass go on after ``iterations`` batches, where one pass begins when the one before has ended."""
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
        """The batches of a pass after ``skip``, each with the position of its first sample."""
        if self.infinite:
            self.batches.sampler.indices = self.batches.sampler._indices_of_rank()
        drawn = _apart(self.batches, mixed_seed(self.seed, self.epoch, ORDER)) if self._remembers else self.batches
        position = 0
        for number, batch in enumerate(drawn):
            if number >= skip:
                yield position, batch
            position += len(batch)


def _apart(draws: Iterable[Any], seed: int) -> Iterator[Any]:
    """``draws``, made with global generators that nothing else moves and that move nothing else."""
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
    """The seed of the run: that of the first process, which is the one a checkpoint holds."""
    shared = [seed]
    broadcast_object_list(shared)
    return int(shared[0] or 0)


class Draws:
    """The random state of Python, NumPy and torch, on the CPU and on the devices of ``model``, as it is now.

    Args:
        model: Whose CUDA devices count.
    """

    def __init__(self, model: nn.Module) -> None:
        devices = {value.device for value in model.parameters() if value.is_cuda}
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        self._devices = {device: torch.cuda.get_rng_state(device) for device in devices}

    def restore(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._torch)
        for device, state in self._devices.items():
            torch.cuda.set_rng_state(state, device)
