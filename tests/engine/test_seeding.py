"""Augmentation as a function of the position."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset

pytest.importorskip('mmengine')

from mmengine.dataset import DefaultSampler

from mmgps.engine.seeding import SeededDataset, SeededIndex, SeededSampler


class Noise(Dataset):
    """Sample ``i`` is ``i`` and a random number, as an augmentation draws it."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, torch.rand(()).item()


@pytest.mark.parametrize('data', [Noise(), Subset(Noise(), [7, 6, 5, 4])], ids=['plain', 'subset'])
def test_a_loader_seeds_every_sample(data: Dataset) -> None:
    """A subset hands out whole batches, past ``__getitem__``."""
    batches = [[SeededIndex(0, 10), SeededIndex(1, 11)], [SeededIndex(0, 10), SeededIndex(2, 12)]]
    first, second = DataLoader(SeededDataset(data), batch_sampler=batches)
    assert first[0].tolist() == [data[0][0], data[1][0]]
    assert first[1][0] == second[1][0]
    assert len({*first[1].tolist(), *second[1].tolist()}) == 3


def test_a_batch_sampler_may_ask_its_sampler_for_more() -> None:
    """As those that put images of one aspect ratio together ask for the data set."""
    sampler = SeededSampler(DefaultSampler(Noise()), seed=3, rank=0)
    assert isinstance(sampler.dataset, Noise)
    assert len(pickle.loads(pickle.dumps(sampler)).dataset) == 8
    with pytest.raises(AttributeError, match='sampler_of'):
        _ = sampler.sampler_of
