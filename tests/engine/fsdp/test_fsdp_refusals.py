"""Runs that cannot be sharded are refused with a reason."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

pytest.importorskip('mmseg')

from fsdp_runs import has_fsdp2, validating
from tiny import TinyPictures, assert_same_bits, state_of, tiny_config, tiny_model, train  # noqa: F401

from mmgps.engine import ShardingError, build_runner, tune_config
from mmgps.engine.fsdp import shards
from mmgps.engine.fsdp.shards import shard_frozen

pytestmark = pytest.mark.skipif(not has_fsdp2(), reason='this torch has no FSDP2')


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of one process, which is enough to test refusals."""
    for name in ('RANK', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '0')
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def config(work_dir: Path, **changes: Any):
    cfg = tiny_config(work_dir, max_iters=1, **changes)
    cfg.setdefault('strategy', dict(type='mmgps.GPSFSDPStrategy'))
    cfg.update(runner_type='FlexibleRunner', launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo')))
    return cfg


def hooks(*more: dict, **gps: Any) -> list[dict]:
    return [dict(type='mmgps.GPSHook', k=1, **gps), *more]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    'masked': (dict(custom_hooks=hooks(sparse=dict(type='mmgps.MaskedTraining'))), 'copy of the whole base'),
    'ema': (dict(custom_hooks=hooks(dict(type='EMAHook'))), 'EMAHook needs the full model .* train without it'),
    'delta': (dict(custom_hooks=hooks(dict(type='mmgps.DeltaHook'))), 'DeltaHook needs the full model .*tools/delta'),
    'report': (dict(custom_hooks=hooks(dict(type='mmgps.SelectionReportHook'))), 'tools/selection_report.py'),
    'wrapper': (dict(strategy=dict(type='mmgps.GPSFSDPStrategy', model_wrapper=dict(type='X'))), 'model_wrapper'),
    'unit': (dict(strategy=dict(type='mmgps.GPSFSDPStrategy', units=['Encoder'])), "'Encoder'.*nearest.*EncoderLayer"),
}


@pytest.mark.parametrize('case', REFUSED)
def test_runs_that_need_the_whole_model(case: str, tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        train_any(config(tmp_path, **changes))


def test_a_method_that_freezes_nothing(tmp_path: Path) -> None:
    cfg = tune_config(config(tmp_path, custom_hooks=[]), 'full')
    with pytest.raises(ShardingError, match=r"trains the whole model.*type='FSDPStrategy'"):
        train_any(cfg)


def test_validation_by_windows(tmp_path: Path) -> None:
    model = tiny_model()
    model['test_cfg'] = dict(mode='slide', crop_size=(16, 16), stride=(8, 8))
    with pytest.raises(ShardingError, match=r"mode='slide' calls the model once per window.*tools/test.py"):
        train_any(validating(config(tmp_path, model=model)))


def test_validation_of_unequal_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, 'all_gather_object', lambda batches: [batches, batches + 1])
    with pytest.raises(ShardingError, match=r'have \[\d, \d\] batches to validate.*round_up=True'):
        train_any(validating(config(tmp_path)))


def test_a_wrapper_that_averages_nothing(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    cfg.optim_wrapper.type = 'OptimWrapper'
    with pytest.raises(TypeError, match=r"OptimWrapper does not average gradients .*'mmgps.GPSOptimWrapper'"):
        train_any(cfg)


def test_a_run_without_a_hook(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match='does not know what is selected'):
        train_any(config(tmp_path, custom_hooks=[]))


def test_one_process_without_a_launcher(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    cfg.launcher = 'none'
    with pytest.raises(ShardingError, match=r'needs several processes; .*--launcher pytorch'):
        train_any(cfg)


def test_a_torch_without_fsdp2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.distributed.fsdp, 'fully_shard')
    with pytest.raises(ShardingError, match=r'fully_shard that leaves parameters out; install a newer one'):
        train_any(config(tmp_path))


def test_strategies_that_lay_parameters_out_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: None)
    cfg = config(tmp_path, strategy=dict(type='FSDPStrategy', model_wrapper=dict(device_id=torch.device('cpu'))))
    with pytest.raises(TypeError, match=r"FSDPStrategy rearranges the parameters .*'mmgps.GPSFSDPStrategy'"):
        train_any(cfg)


def test_a_strategy_that_the_runner_would_ignore(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    cfg.pop('runner_type')
    with pytest.raises(ValueError, match="set runner_type='FlexibleRunner'"):
        build_runner(cfg)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


@pytest.mark.parametrize(
    ('net', 'message'),
    [
        (tied(), r'0\.weight and 1\.weight are tied'),
        (nn.Sequential(nn.LSTM(4, 4)), '0 is a LSTM, which keeps its weights in a second list'),
        (nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), r'weight is laid out with strides .*channels_last'),
    ],
    ids=['tied', 'recurrent', 'channels-last'],
)
def test_parameters_that_cannot_be_cut(net: nn.Module, message: str) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ShardingError, match=message):
        shard_frozen(net, [], torch.device('cpu'))
    assert_same_bits(net.state_dict(), before)


def test_nothing_is_refused_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strategy also joins processes without a CUDA device."""
    dist.destroy_process_group()
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        port = found.getsockname()[1]
    for name, value in dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, WORLD_SIZE=1).items():
        monkeypatch.setenv(name, str(value))
    runner = train_any(validating(config(tmp_path)))
    assert runner.iter == 1
    assert type(runner.model).__name__ == 'FSDPEncoderDecoder'


def test_a_flexible_runner_without_processes_is_a_runner(tmp_path: Path) -> None:
    dist.destroy_process_group()
    cfg = tiny_config(tmp_path / 'flexible', runner_type='FlexibleRunner', env_cfg=dict(dist_cfg=dict(backend='gloo')))
    base = tmp_path / 'base.pth'
    torch.save(dict(state_dict=state_of(train(tiny_config(tmp_path / 'base', max_iters=0)))), base)
    cfg.load_from = str(base)
    found = train_any(cfg)
    expected = train(tiny_config(tmp_path / 'plain', load_from=str(base)))
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    assert_same_bits(state_of(found), state_of(expected))


def train_any(cfg: Any) -> Any:
    assert os.environ['RANK'] == '0'
    runner = build_runner(cfg)
    runner.train()
    return runner
