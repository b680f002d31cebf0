"""``mmgps.tune`` by two processes: before DistributedDataParallel nothing else is to be called; FSDP is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from small_model import state
from torch import nn
from tuned_ranks import STEPS, adamw, base, batch, tune

import mmgps

CASES = ['compact', 'masked', 'accumulated', 'static', 'unused', 'views']


@pytest.fixture(scope='module')
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp('ranks')
    run_ranks('tuned_ranks.py', 2, folder)
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in range(2)]


@pytest.mark.parametrize('case', CASES)
def test_two_processes_train_as_one_does_over_the_samples_of_both(case: str, by_rank: list[dict[str, Any]]) -> None:
    model = base()
    tune(model)
    optimizer = adamw(model)
    for step in range(STEPS):
        for rank in range(2):
            (model(batch(step, rank)) / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
    first, second = (found[case]['state'] for found in by_rank)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, state(model), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('case', CASES)
def test_what_moves_is_what_the_report_counts(case: str, by_rank: list[dict[str, Any]]) -> None:
    found = by_rank[0][case]
    moved = sum(int((found['state'][name] != value).sum()) for name, value in found['before'].items())
    [line] = [line for line in found['report'].splitlines() if line.startswith('total')]
    assert moved == int(line.split()[1]) == 98


def test_a_wrapper_from_before_is_refused(by_rank: list[dict[str, Any]]) -> None:
    for found in by_rank:
        assert found['before'].startswith('UntrainedError: DistributedDataParallel does not reduce 2 trained tensors')
        assert 'wrap it afterwards' in found['before']


def test_a_model_tuned_before_the_process_group_is_refused(by_rank: list[dict[str, Any]]) -> None:
    for found in by_rank:
        assert found['early'].startswith('UntrainedError: DistributedDataParallel reduces 2 whole weights')
        assert 'configure_model' in found['early']


@pytest.mark.parametrize('case', ['sharded', 'sharded in part', 'sharded lora', 'sharded before'])
def test_fully_shard_is_refused(case: str, by_rank: list[dict[str, Any]]) -> None:
    for found in by_rank:
        assert found[case].startswith('UntrainedError: FSDP holds the model in parts (FSDP')
        assert "use DistributedDataParallel, or mmengine's FlexibleRunner" in found[case]


# -- what several processes choose -------------------------------------------------------------------------------------


def test_processes_with_samples_of_their_own_choose_by_all_of_them(by_rank: list[dict[str, Any]]) -> None:
    first, second = (found['own batches'] for found in by_rank)
    expected = tune(base()).selection.connections  # by the samples of both
    alone = base()
    by_one = mmgps.tune(alone, 'gps', batches=[batch(0, 1)], loss=alone).selection.connections
    assert any(not torch.equal(item.positions, by_one[name].positions) for name, item in expected.items())
    for found in (first, second):
        assert {name: item.positions.tolist() for name, item in expected.items()} == {
            name: positions.tolist() for name, positions in found['chosen'].items()
        }
    torch.testing.assert_close(first['state'], second['state'], rtol=0, atol=0)


def test_a_random_choice_is_that_of_the_first_process(by_rank: list[dict[str, Any]]) -> None:
    first, second = (found['random'] for found in by_rank)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_broken_samples_of_one_process_stop_both(by_rank: list[dict[str, Any]]) -> None:
    first, second = (found['failing'] for found in by_rank)
    assert second.startswith('NonFiniteGradientError')
    assert first.startswith('OtherProcessError: choosing what is trained failed on process 1: NonFinite')


def test_a_selection_that_the_first_process_does_not_have(by_rank: list[dict[str, Any]]) -> None:
    assert by_rank[0]['other selection'].startswith('OtherProcessError')
    assert by_rank[1]['other selection'].startswith('ValueError: selection is another one than that of the first')
