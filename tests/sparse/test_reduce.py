"""Gradients of the values over several processes."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mmgps.sparse.compact import average_gradients


def _work(rank: int, folder: Path) -> None:
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    values = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape, dtype in SHAPES]
    for at, value in enumerate(values[:-1]):
        if (at, rank) != (1, 1):
            value.grad = torch.full_like(value, float(10 * at + rank))
    average_gradients(values)
    torch.save([value.grad for value in values], folder / f'{rank}.pt')
    dist.destroy_process_group()


SHAPES = [((3, 2), torch.float32), ((4,), torch.float32), ((2, 1), torch.float64), ((5,), torch.float32)]


def test_two_processes_hold_the_mean_and_what_nobody_has_stays_absent(tmp_path: Path) -> None:
    mp.spawn(_work, (tmp_path,), nprocs=2)
    for rank in range(2):
        first, second, third, absent = torch.load(tmp_path / f'{rank}.pt')
        assert torch.equal(first, torch.full((3, 2), 0.5))
        assert torch.equal(second, torch.full((4,), 5.0))  # one process has none: it counts as zero
        assert torch.equal(third, torch.full((2, 1), 20.5, dtype=torch.float64))
        assert absent is None


def test_a_single_process_is_left_alone() -> None:
    value = nn.Parameter(torch.zeros(2))
    value.grad = torch.ones(2)
    average_gradients([value])
    assert torch.equal(value.grad, torch.ones(2))
