"""Augmentation is a function of the position."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, Subset, WeightedRandomSampler

pytest.importorskip('mmengine')

from mmengine.dataset import DefaultSampler, InfiniteSampler

from mmgps.engine.resuming.seeding import SeededBatches, SeededDataset, SeededIndex


class Noise(Dataset):
    """Data set whose sample ``i`` is ``i`` and a random number, like an augmentation."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, torch.rand(()).item()


@pytest.mark.parametrize('data', [Noise(), Subset(Noise(), [7, 6, 5, 4])], ids=['plain', 'subset'])
def test_a_loader_seeds_every_sample(data: Dataset) -> None:
    """A subset returns full batches without calling ``__getitem__``."""
    batches = [[SeededIndex(0, 10), SeededIndex(1, 11)], [SeededIndex(0, 10), SeededIndex(2, 12)]]
    first, second = DataLoader(SeededDataset(data), batch_sampler=batches)
    assert first[0].tolist() == [data[0][0], data[1][0]]
    assert first[1][0] == second[1][0]
    assert len({*first[1].tolist(), *second[1].tolist()}) == 3


class Growing(Sampler):
    """Sampler that remembers the number of its passes and draws from NumPy's global generator."""

    calls = 0

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        self.calls += 1
        yield from np.random.permutation(self.count)[: 3 + self.calls].tolist()  # noqa: NPY002

    def __len__(self) -> int:
        return self.count


class OwnGenerators(Sampler):
    """Endless sampler with its own unseeded generators."""

    def __init__(self) -> None:
        self.numpy, self.python, self.torch = np.random.default_rng(), random.Random(), torch.Generator()

    def __iter__(self) -> Iterator[int]:
        while True:
            yield int(self.numpy.integers(4) + self.python.randrange(3))
            yield int(torch.randint(8, (), generator=self.torch))

    def __len__(self) -> int:
        return 8


class Pairs(BatchSampler):
    """Batch sampler that keeps an incomplete batch for the next pass."""

    left: list[int] = []

    def __iter__(self) -> Iterator[list[int]]:
        kept, self.left = list(self.left), []
        for index in self.sampler:
            kept.append(index)
            if len(kept) == self.batch_size:
                yield kept
                kept = []
        self.left = kept


SAMPLERS = {
    'default': lambda: BatchSampler(DefaultSampler(Noise(), seed=7), 3, False),
    'infinite': lambda: BatchSampler(InfiniteSampler(Noise(), seed=7), 3, False),
    'weighted': lambda: BatchSampler(WeightedRandomSampler([1.0, 2, 3, 4], 8), 3, False),
    'growing': lambda: BatchSampler(Growing(8), 3, True),
    'own generators': lambda: BatchSampler(OwnGenerators(), 3, False),
    'leftovers': lambda: Pairs(DefaultSampler(Noise(), seed=7), 3, False),
}


def endless(batches: SeededBatches) -> Iterator[list[tuple[int, int]]]:
    """Yield pass after pass while other code uses the global generators."""
    while True:
        for batch in batches:
            torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
            yield [(int(index), index.seed) for index in batch]
        batches.set_epoch(batches.epoch + 1)


@pytest.mark.parametrize('start', [0, 1, 2, 5, 9])
@pytest.mark.parametrize('kind', SAMPLERS)
def test_every_sampler_goes_on_as_if_it_had_not_been_interrupted(kind: str, start: int) -> None:
    """The oracle for a loop by iteration draws all earlier batches."""
    whole = endless(SeededBatches(SAMPLERS[kind](), 3, rank=1))
    expected = [next(whole) for _ in range(start + 6)][start:]
    resumed = SeededBatches(SAMPLERS[kind](), 3, rank=1)
    resumed.start_after(start)
    again = endless(resumed)
    assert [next(again) for _ in range(6)] == expected


@pytest.mark.parametrize('batch', [0, 1])
@pytest.mark.parametrize('kind', [kind for kind in SAMPLERS if kind not in ('infinite', 'own generators')])
def test_every_sampler_goes_on_within_an_epoch(kind: str, batch: int) -> None:
    whole = SeededBatches(SAMPLERS[kind](), 3, rank=0)
    for epoch in range(3):
        whole.set_epoch(epoch)
        drawn = [list(map(int, each)) for each in whole]
    resumed = SeededBatches(SAMPLERS[kind](), 3, rank=0)
    resumed.start_at(2, batch)
    resumed.set_epoch(2)  # mmengine sets it again
    assert [list(map(int, each)) for each in resumed] == drawn[batch:]
    assert len({index.seed for each in resumed for index in each}) > 2


def test_drawing_moves_no_generator_of_the_model() -> None:
    batches = SeededBatches(SAMPLERS['growing'](), 3, rank=0)
    torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
    expected = torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
    assert list(batches)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected  # noqa: NPY002


def test_the_order_of_mmengine_is_kept() -> None:
    seeded = SeededBatches(BatchSampler(DefaultSampler(Noise(), seed=1), 3, False), 3, rank=0)
    seeded.set_epoch(2)
    plain = DefaultSampler(Noise(), seed=3)
    plain.set_epoch(2)
    assert [int(index) for batch in seeded for index in batch] == list(plain)
