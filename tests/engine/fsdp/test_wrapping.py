"""The wrapper of distributed training, on a single process."""

from pathlib import Path

import pytest
import torch
from mmengine._strategy import DDPStrategy
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import FlexibleRunner, Runner
from tiny import base_state, resnet, state_of, tiny_config, train
from torch import nn

from mmgps.engine.fsdp.wrapping import rewrap
from mmgps.rewiring import Injected
from mmgps.selection import load_selection
from mmgps.tuning.operations import check_connected


@MODEL_WRAPPERS.register_module(force=True)
class StubWrapper(nn.Module):
    """Wrapper that passes every call to the model."""

    def __init__(self, module: nn.Module, device_ids: object = None) -> None:
        super().__init__()
        self.module = module

    def train_step(self, data, optim_wrapper):
        return self.module.train_step(data, optim_wrapper=optim_wrapper)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list:
    """Owner of the compiled function of each call."""
    calls: list = []

    def compile_(function, **options):
        return lambda *args, **kwargs: (calls.append(function.__self__), function(*args, **kwargs))[1]

    monkeypatch.setattr(Runner, 'wrap_model', lambda self, cfg, model: StubWrapper(model))
    monkeypatch.setattr(torch, 'compile', compile_)
    return calls


def test_the_steps_of_the_new_wrapper_are_compiled(compiled: list, tmp_path: Path) -> None:
    runner = train(tiny_config(tmp_path, compile=dict(backend='eager')))
    assert isinstance(runner.model, StubWrapper)
    assert compiled == [runner.model] * 6


def test_without_compile_nothing_is(compiled: list, tmp_path: Path) -> None:
    train(tiny_config(tmp_path))
    assert compiled == []


@pytest.fixture
def converting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrap models as if there were several processes."""
    wrap = Runner.wrap_model

    def wrap_among_several(runner: Runner, cfg: dict | None, model: nn.Module) -> nn.Module:
        with monkeypatch.context() as patch:
            patch.setattr(Runner, 'distributed', True)
            return wrap(runner, cfg, model)

    monkeypatch.setattr(Runner, 'wrap_model', wrap_among_several)


def test_norms_that_are_sync_bn_are_not_rebuilt(converting: None, tmp_path: Path) -> None:
    cfg = tiny_config(
        tmp_path, model=resnet(), sync_bn='torch', model_wrapper_cfg=dict(type='StubWrapper'), max_iters=2
    )
    cfg.custom_hooks = [dict(type='mmgps.TuneHook', method=dict(type='mmgps.SSF'))]
    runner = train(cfg)
    backbone = runner.model.module.backbone
    assert isinstance(backbone.bn1, nn.SyncBatchNorm)
    assert cfg.sync_bn == runner.cfg.sync_bn == 'torch'
    assert any(isinstance(module, Injected) for module in backbone.bn1.children())
    check_connected(backbone)


def test_nor_are_they_by_a_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FlexibleRunner.__new__(FlexibleRunner)
    runner.strategy = DDPStrategy.__new__(DDPStrategy)
    runner.strategy.sync_bn, runner.strategy.model_wrapper = 'torch', dict(type='StubWrapper')
    monkeypatch.setenv('LOCAL_RANK', '0')
    runner.model = runner.strategy._wrap_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    first, norm = runner.model, runner.model.module[1]
    rewrap(runner)
    assert runner.model is not first
    assert runner.model.module[1] is norm
    assert runner.strategy.sync_bn == 'torch'


@pytest.mark.parametrize('backend', ['aot_eager', pytest.param('inductor', marks=pytest.mark.slow)])
def test_a_compiled_run_trains_as_one_that_is_not(backend: str, tmp_path: Path) -> None:
    torch._dynamo.reset()
    one_stage = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,), zero_init_residual=False)
    states, chosen, model = [], [], resnet()
    model['backbone'].update(one_stage)
    model['decode_head']['in_channels'] = 8
    for name, compiled in (('eager', False), ('compiled', dict(backend=backend))):
        optimizer = dict(type='SGD', lr=0.1, momentum=0.9)
        cfg = tiny_config(tmp_path / name, max_iters=2, model=model, compile=compiled)
        cfg.optim_wrapper.optimizer = optimizer
        states.append(state_of(train(cfg)))
        chosen.append(load_selection(tmp_path / name / 'selection.safetensors'))
    torch._dynamo.reset()
    assert chosen[0].equals(chosen[1])
    base = base_state(tiny_config(tmp_path / 'base', model=model))
    for name, connections in chosen[0].connections.items():
        eager, found, before = (state[f'backbone.{name}'].flatten()[connections.positions] for state in (*states, base))
        moved = eager - before
        assert moved.any(), name
        torch.testing.assert_close(found - before, moved, rtol=0, atol=0.01 * float(moved.abs().max()), msg=name)
