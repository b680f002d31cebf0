"""A selection pass has equally many batches on every process, and every sample once."""

from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip('mmengine')

from mmengine.dataset import BaseDataset, RepeatDataset
from torch import nn

from mmgps.engine.selecting.selection_batches import SelectionBatches, ShuffledSampler, selection_batches
from mmgps.engine.selecting.selection_pass import synchronizes


def on_every_process(length: int, size: int, world: int, num_batches: int | None = None) -> list[SelectionBatches]:
    loader = DataLoader(TensorDataset(torch.arange(length)), batch_size=size)
    return [selection_batches(loader, num_batches, 7, rank, world) for rank in range(world)]


@pytest.mark.parametrize('world', [1, 2, 3, 4])
@pytest.mark.parametrize(('length', 'size'), [(5, 1), (3, 1), (1, 1), (16, 4), (17, 4), (18, 4), (9, 4), (2, 4)])
def test_every_sample_counts_once_and_all_take_as_many_steps(length: int, size: int, world: int) -> None:
    found = on_every_process(length, size, world)
    [steps] = {len(one) for one in found}
    counted, drawn = Counter(), 0
    for one in found:
        pairs = list(one)
        assert len(pairs) == steps
        drawn += len(pairs)
        for (samples,), weight in pairs:
            assert len(samples) > 0
            counted.update({int(sample): weight for sample in samples if weight})
    assert counted == dict.fromkeys(range(length), 1.0)
    assert drawn == steps * world


class Five(BaseDataset):
    """Data set of five samples."""

    def load_data_list(self) -> list[dict]:
        return [dict(number=at) for at in range(5)]


def test_a_repeated_data_set_is_seen_once() -> None:
    """Configs of mmseg for vessels repeat twenty pictures 40,000 times."""
    data = RepeatDataset(Five(), times=1000)
    found = selection_batches(DataLoader(data, batch_size=2, collate_fn=list), None, 7)
    assert sorted(sample['number'] for samples, _ in found for sample in samples) == list(range(5))
    assert sorted(ShuffledSampler().indices(data, 0)) == list(range(5))


def test_the_order_is_the_same_every_time() -> None:
    first, second = ([[(b[0].tolist(), w) for b, w in one] for one in on_every_process(11, 2, 3)] for _ in range(2))
    assert first == second


def test_a_number_of_batches_is_that_of_each_process() -> None:
    for one in on_every_process(20, 2, 3, num_batches=2):
        assert [(len(batch[0]), weight) for batch, weight in one] == [(2, 1.0), (2, 1.0)]


def test_of_no_data_there_are_no_batches() -> None:
    class Empty(TensorDataset):
        def __len__(self) -> int:
            return 0

    loader = DataLoader(Empty(torch.zeros(0)), batch_sampler=[])
    assert [len(selection_batches(loader, None, 0, rank, 2)) for rank in range(2)] == [0, 0]


def test_what_waits_for_other_processes() -> None:
    assert synchronizes(nn.Sequential(nn.SyncBatchNorm(3)))
    assert not synchronizes(nn.Sequential(nn.BatchNorm2d(3)))
