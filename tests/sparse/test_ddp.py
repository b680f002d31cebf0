"""Compact training on two processes equals masked training and exchanges only trained numbers."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ddp_runs import CASES, KINDS, Net, alone, base_of, work
from torch import nn
from training_pair import assert_equal_training, random_selection, train

from mmgps.selection import Role, describe
from mmgps.sparse import CompactTraining
from mmgps.sparse.compact import average_gradients


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('ddp')
    mp.spawn(work, (folder,), nprocs=2)
    return folder


def held(runs: Path, case: str, kind: str, rank: int = 0) -> dict:
    return torch.load(runs / f'{case}-{kind}-{rank}.pt')


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('case', CASES)
def test_compact_equals_masked_and_both_processes_hold_the_same_bits(runs: Path, case: str) -> None:
    first, second = (held(runs, case, 'compact', rank)['state'] for rank in range(2))
    statistics = case == 'batch-norm'  # of the samples of each process
    for name, value in first.items():
        assert (statistics and 'running' in name) or torch.equal(value, second[name]), name
    assert_near(first, held(runs, case, 'masked')['state'])
    base = base_of(case)
    selection = random_selection(base, 2)
    before = base.state_dict()
    for parameter, connections in selection.resolve(base):
        mask, after = connections.mask(parameter.neurons), first[parameter.name]
        assert torch.equal(after[~mask], before[parameter.name][~mask])
        assert (after[mask] != before[parameter.name][mask]).any()


@pytest.mark.parametrize('case', [case for case in CASES if case != 'batch-norm'])
def test_two_processes_equal_one_over_the_samples_of_both(runs: Path, case: str) -> None:
    assert_near(held(runs, case, 'compact')['state'], alone(case))


def test_only_trained_numbers_are_exchanged(runs: Path) -> None:
    base = base_of('plain')
    selection = random_selection(base, 2)
    whole = sum(base.get_parameter(name).numel() for name in selection.whole)
    compact, masked = (held(runs, 'plain', kind) for kind in reversed(KINDS))
    assert compact['ddp'] == whole
    # one flag per weight tells whether it has a gradient
    assert compact['otherwise'] == len(selection) + len(selection.connections)
    dense = sum(base.get_parameter(name).numel() for name in selection.connections)
    assert (masked['ddp'], masked['otherwise']) == (whole + dense, 0)


def test_synchronised_norms_are_norms_and_train_as_plain_ones_in_one_process() -> None:
    network = Net(nn.SyncBatchNorm).double()
    assert {describe(network)[f'norm.{name}'].role for name in ('weight', 'bias')} == {Role.NORM}
    selection = random_selection(network, 2)
    assert not {'norm.weight', 'norm.bias'} & {*selection.whole, *selection.connections}
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    assert_equal_training(network, selection, lambda net, step: net(x + step, True).square().mean(), 5, 'sgd')


def test_a_selection_serves_a_network_whose_norms_were_reverted() -> None:
    """``mmengine.model.revert_sync_batchnorm`` reverts them for runs on the CPU."""
    revert = pytest.importorskip('mmengine.model').revert_sync_batchnorm
    network = Net(nn.SyncBatchNorm).double()
    selection = random_selection(network, 2)
    reverted = revert(copy.deepcopy(network))
    assert not isinstance(reverted.norm, nn.SyncBatchNorm)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    states = []
    for net in (network, reverted):
        trained = train(
            CompactTraining, net, selection, lambda net, step: net(x + step, True).square().mean(), 3, 'sgd'
        )
        states.append(trained.state_dict())
    assert_near(states[1], states[0])


SHAPES = [((3, 2), torch.float32), ((4,), torch.float32), ((2, 1), torch.float64), ((5,), torch.float32)]


def average(rank: int, folder: Path) -> None:
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    values = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape, dtype in SHAPES]
    for at, value in enumerate(values[:-1]):
        if (at, rank) != (1, 1):
            value.grad = torch.full_like(value, float(10 * at + rank))
    average_gradients(values)
    torch.save([value.grad for value in values], folder / f'{rank}.pt')
    dist.destroy_process_group()


def test_gradients_are_averaged_and_stay_absent_if_no_process_has_one(tmp_path: Path) -> None:
    mp.spawn(average, (tmp_path,), nprocs=2)
    for rank in range(2):
        first, second, third, absent = torch.load(tmp_path / f'{rank}.pt')
        assert torch.equal(first, torch.full((3, 2), 0.5))
        assert torch.equal(second, torch.full((4,), 5.0))  # one process has none, which counts as zero
        assert torch.equal(third, torch.full((2, 1), 20.5, dtype=torch.float64))
        assert absent is None


def test_a_single_process_keeps_its_gradients() -> None:
    value = nn.Parameter(torch.zeros(2))
    value.grad = torch.ones(2)
    average_gradients([value])
    assert torch.equal(value.grad, torch.ones(2))
