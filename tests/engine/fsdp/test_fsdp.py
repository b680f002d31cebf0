"""A frozen base that is sharded over processes trains like a full one."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('mmseg')

from fsdp_runs import ITERATIONS, METHODS, NETWORKS, has_fsdp2
from ranks import run_ranks
from tiny import assert_same_bits, tiny_config, train

from mmgps.engine import build_plain
from mmgps.selection import unpack_selection

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(not has_fsdp2(), reason='this torch has no FSDP2')


class Runs:
    """Results of each process of ``fsdp_runs.py``."""

    def __init__(self, folder: Path, world: int) -> None:
        self.folder, self.world = folder, world
        run_ranks('fsdp_runs.py', world, folder)
        self.ranks = [torch.load(folder / f'found-{rank}.pth', weights_only=True) for rank in range(world)]

    def __getitem__(self, key: str) -> Any:
        return self.ranks[0][key]

    def saved(self, run: str, iteration: int = ITERATIONS) -> dict[str, Any]:
        return torch.load(self.folder / run / f'iter_{iteration}.pth', weights_only=True)


@pytest.fixture(scope='module')
def two(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp('two'), 2)


@pytest.fixture(scope='module')
def four(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp('four'), 4)


each_world = pytest.mark.parametrize('world', ['two', pytest.param('four', marks=pytest.mark.slow)])


@pytest.fixture
def runs(world: str, request: pytest.FixtureRequest) -> Runs:
    return request.getfixturevalue(world)


@each_world
def test_each_process_holds_its_part_and_no_more(runs: Runs) -> None:
    held = [found['sharded']['bytes'] for found in runs.ranks]
    [whole] = {total for _, total in held}
    assert whole > 25_000
    assert sum(here for here, _ in held) == whole
    assert max(here for here, _ in held) <= 1.02 * whole / runs.world
    for found in runs.ranks:
        assert found['sharded']['bytes_after'] == found['sharded']['bytes'], 'validation left something whole'
        assert found['sharded']['whole'] == [], 'a frozen weight is whole on a process between two steps'


@each_world
def test_resumed_equals_uninterrupted(runs: Runs) -> None:
    resumed, whole = runs.saved('cut'), runs.saved('sharded')
    assert_same_bits(resumed['state_dict'], whole['state_dict'])
    assert_same_optimizer(resumed, whole)
    for found in runs.ranks:
        assert_same_bits(parameters(found['resumed']['state']), parameters(found['sharded']['state']))


@each_world
def test_all_processes_hold_the_same_numbers(runs: Runs) -> None:
    first, *others = (parameters(found['sharded']['state']) for found in runs.ranks)
    for other in others:
        assert_same_bits(other, first)


@pytest.mark.parametrize('kind', NETWORKS)
def test_each_architecture_trains_as_a_whole_one(kind: str, two: Runs) -> None:
    """They agree bit for bit, except for convolutions, whose rounding depends on the memory address of a weight."""
    sharded, plain, base = two['networks'][kind]
    trained = [name for name, value in base.items() if not torch.equal(plain[name], value)]
    assert len(trained) > 5
    assert_same_bits(without(sharded, trained), without(plain, trained))
    for name in trained:
        torch.testing.assert_close(sharded[name], plain[name], rtol=1e-5, atol=1e-6)
    if kind in ('vit', 'mmpretrain-vit', 'vit-bf16'):
        assert_same_bits(sharded, plain)
    assert_same_bits(two.ranks[1]['networks'][kind][0], sharded)


@pytest.mark.parametrize('method', METHODS)
def test_each_method_trains_as_under_ddp(method: str, two: Runs) -> None:
    sharded, plain = two['methods'][method]
    assert_same_bits(sharded['state'], plain['state'])


def test_checkpoints_and_scores_are_those_of_ddp(two: Runs) -> None:
    sharded, plain = two.saved('sharded'), two.saved('plain')
    assert sharded['state_dict'].keys() == plain['state_dict'].keys()
    assert_same_bits(sharded['state_dict'], plain['state_dict'])
    assert_same_optimizer(sharded, plain)
    assert unpack_selection(sharded['mmgps_selection']).equals(unpack_selection(plain['mmgps_selection']))
    build_plain(tiny_config(two.folder)).load_state_dict(sharded['state_dict'])
    assert [f['sharded']['metrics'] for f in two.ranks] == [f['plain']['metrics'] for f in two.ranks]


def test_frozen_numbers_keep_their_bits(two: Runs) -> None:
    base = torch.load(two.folder / 'base-0.pth', weights_only=True)['state_dict']
    found = two.saved('sharded')
    selection = unpack_selection(found['mmgps_selection'])
    moved = 0
    for name, value in base.items():
        inner = name.removeprefix('backbone.')
        if inner == name or inner in selection.whole:
            continue
        changed = (found['state_dict'][name] != value).view(-1)
        chosen = torch.zeros_like(changed)
        if inner in selection.connections:
            chosen[selection.connections[inner].positions] = True
        assert not changed[~chosen].any(), name
        moved += int(changed.sum())
    assert moved > 0.9 * len(selection)


def test_accumulation_and_gradient_checkpointing(two: Runs) -> None:
    sharded, plain = two['accumulated']
    assert_same_bits(sharded['state'], plain['state'])


@pytest.mark.parametrize('fsdp', [True, False])
def test_a_run_goes_on_within_an_accumulation(two: Runs, fsdp: bool) -> None:
    resumed, whole = two['within an accumulation'][fsdp]
    assert_same_bits(resumed['state'], whole['state'])
    summed = [two.saved(f'within-{fsdp}', iteration)['mmgps_gradients'] for iteration in (2, 4)]
    for first, second in summed:
        assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert 'mmgps_gradients' not in two.saved(f'within-{fsdp}', 6)


def test_a_flexible_runner_under_ddp_is_a_runner(two: Runs) -> None:
    assert_same_bits(two['flexible']['state'], two['plain']['state'])


def test_the_tool_builds_what_the_config_asks_for(two: Runs) -> None:
    assert_same_bits(two.saved('tool', 2)['state_dict'], two.saved('gps-True', 2)['state_dict'])


def test_a_run_goes_on_without_fsdp(two: Runs, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, max_iters=8, load_from=str(two.folder / 'sharded/iter_6.pth'), resume=True)
    assert train(cfg).iter == 8


def test_a_delta_is_extracted_and_merged(two: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tool(*words: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['tools/delta.py', *map(str, words)])
        runpy.run_path(str(ROOT / 'tools/delta.py'), run_name='__main__')

    config, delta, merged = two.folder / 'tool.py', tmp_path / 'delta.safetensors', tmp_path / 'merged.pth'
    tool('extract', config, two.folder / 'tool/iter_2.pth', delta)
    tool('merge', config, delta, merged)
    found = torch.load(merged, weights_only=True)['state_dict']
    assert_same_bits(found, two.saved('tool', 2)['state_dict'])


def parameters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State without the statistics of BatchNorm, which each process keeps for itself, as under DDP."""
    return {name: value for name, value in state.items() if 'running_' not in name}


def without(state: dict[str, torch.Tensor], names: list[str]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name not in names}


def assert_same_optimizer(found: dict[str, Any], expected: dict[str, Any]) -> None:
    states = [checkpoint['optimizer']['state'] for checkpoint in (found, expected)]
    assert states[0].keys() == states[1].keys()
    assert len(states[1]) > 10
    for key, state in states[1].items():
        assert_same_bits(states[0][key], state)
