"""Data parallelism on one GPU: one NCCL process, two gloo processes, SyncBN, and the sharded base."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('mmseg')

from ranks import run_ranks

pytestmark = pytest.mark.gpu


def run(folder: Path, device: str, world: int, backend: str) -> list[dict[str, Any]]:
    """Return the result of each process of ``gpu_ranks.py``."""
    run_ranks(
        'gpu_ranks.py', world, folder, BACKEND=backend, MMGPS_TEST_DEVICE=device, CUBLAS_WORKSPACE_CONFIG=':4096:8',
        CUDA_VISIBLE_DEVICES='' if device == 'cpu' else os.environ.get('CUDA_VISIBLE_DEVICES', '0'),
    )  # fmt: skip
    return [torch.load(folder / f'found-{rank}.pth', weights_only=True) for rank in range(world)]


@pytest.fixture(scope='module')
def one(device: str, toy: bool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    [found] = run(tmp_path_factory.mktemp('one'), device, 1, 'gloo' if toy else 'nccl')
    return found


@pytest.fixture(scope='module')
def two(device: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two processes on one GPU; gloo allows this, unlike NCCL."""
    return run(tmp_path_factory.mktemp('two'), device, 2, 'gloo')


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f'{name}: {text}'
        )


def test_compact_is_masked_with_one_process(one: dict[str, Any]) -> None:
    assert_close(one['compact'], one['masked'])


def test_two_processes_hold_what_one_holds(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for kind in ('compact', 'masked'):
        for name, value in two[0][kind].items():
            assert torch.equal(two[1][kind][name], value), name
        assert_close(two[0][kind], one[kind])


def test_the_same_run_ends_with_the_same_bits(one: dict[str, Any]) -> None:
    for name, value in one['plain'].items():
        assert torch.equal(one['again'][name], value), name


def test_a_sharded_base_trains_as_a_whole_one(one: dict[str, Any]) -> None:
    for name, value in one['plain'].items():
        torch.testing.assert_close(one['sharded'][name], value, rtol=1e-5, atol=1e-6)
