"""Randomness as a function of a position, not of what happened before.

A generator's state cannot be carried from a killed run into a resumed one when it lives in the worker processes of a
data loader. So nothing is carried: every sample's augmentation and every iteration's dropout draw from generators
that are seeded by (run seed, position).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import broadcast_object_list
from torch import nn


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
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)


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


class SeededSampler:
    """A sampler that gives each draw the seed of its augmentation.

    Args:
        sampler: The sampler whose order is kept.
        seed: Run seed, the same on every process.
        rank: Process, so that processes augment differently.
    """

    def __init__(self, sampler: Any, seed: int, rank: int) -> None:
        self.sampler, self.seed, self.rank, self.epoch = sampler, seed, rank, 0
        if hasattr(sampler, 'seed'):
            sampler.seed = seed

    def __getattr__(self, name: str) -> Any:
        """Batch samplers ask theirs for its data set."""
        if name == 'sampler':
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[SeededIndex]:
        if self.infinite:
            self.sampler.indices = self.sampler._indices_of_rank()
        for position, index in enumerate(self.sampler):
            yield SeededIndex(index, mixed_seed(self.seed, self.rank, self.epoch, position))

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def infinite(self) -> bool:
        return isinstance(self.sampler, InfiniteSampler)


class SkippingBatches:
    """A batch sampler whose next iteration leaves out its first ``skip`` batches.

    Args:
        batches: A batch sampler with a :class:`SeededSampler` as its ``sampler``.
    """

    def __init__(self, batches: Any) -> None:
        self.batches, self.skip = batches, 0

    @property
    def sampler(self) -> SeededSampler:
        return self.batches.sampler

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        # A generator, since a loader with workers asks for an iterator twice and draws from the second.
        skip, self.skip = self.skip, 0
        yield from itertools.islice(iter(self.batches), skip, None)

    def __len__(self) -> int:
        return len(self.batches)


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
