"""A run that does not train all parameters of its count ends with an error after the first iteration."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModule
from mmengine.registry import HOOKS, MODELS, OPTIMIZERS, init_default_scope
from mmengine.runner import Runner
from ranks import run_ranks
from tiny import state_of, tiny_config, tiny_model, train
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmgps.engine import METHOD_NAMES, tune_config
from mmgps.selection import UnreachedError
from mmgps.tuning import InjectionError, LoRA, UntrainedError, merge_operations
from mmgps.tuning.lora import low_rank
from mmgps.tuning.operations import place
from mmgps.tuning.sites import find_sites

ADAMW = dict(type='AdamW', lr=1e-2)


@MODELS.register_module(force=True)
class Recomputing(BaseModule):
    """Network of a frozen stem and a recomputed stage, with a layer that is never called.

    Args:
        reentrant: Variant of torch's activation checkpoint; None recomputes nothing.
    """

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.stem, self.stage = nn.Conv2d(3, 16, 8, 8), nn.Conv2d(16, 16, 1)
        self.spare = nn.Conv2d(16, 16, 1)
        self.stem.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.stem(x)
        if self.reentrant is None:
            return (self.stage(x),)
        return (checkpoint(self.stage, x, use_reentrant=self.reentrant),)


def config(folder: Path, method: str, reentrant: bool | None, **changes):
    cfg = tiny_config(folder, max_iters=2, model={**tiny_model(), 'backbone': dict(type='Recomputing')}, **changes)
    cfg.model.backbone.reentrant = reentrant
    options = dict(parts=('conv',), rank=2) if method == 'lora' else {}
    return tune_config(cfg, method, options)


METHODS = ['gps', 'lora', 'bias', 'full']


@pytest.mark.parametrize('method', ['lora', 'bias', 'full', 'gps-random'])
def test_a_stage_that_a_checkpoint_cuts_off(method: str, tmp_path: Path) -> None:
    runner = Runner.from_cfg(config(tmp_path, method, True))
    with pytest.raises(UntrainedError, match=r'backbone\.stage\..*; they compute where .* reentrant checkpoint'):
        runner.train()
    assert runner.iter == 0
    assert not list(tmp_path.glob('*.pth'))


def test_a_stage_that_a_checkpoint_cuts_off_from_the_selection(tmp_path: Path) -> None:
    with pytest.raises(UnreachedError, match=r"none of the 2 weights to choose from, first 'stage\.weight'.*reentrant"):
        train(config(tmp_path, 'gps', True))


@pytest.mark.parametrize('reentrant', [False, None])
@pytest.mark.parametrize('method', METHODS)
def test_what_no_path_uses_is_named_once(
    method: str, reentrant: bool | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(tmp_path, method, reentrant, log_level='WARNING')
    runner = Runner.from_cfg(cfg)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    said = [text for text in caplog.messages if 'no part in the first iteration' in text]
    assert len(said) == 1
    assert 'backbone.spare.' in said[0]
    assert 'stage' not in said[0]


@pytest.mark.parametrize('accumulated', [1, 3])
def test_under_a_plain_wrapper_and_an_accumulation(accumulated: int, tmp_path: Path) -> None:
    """A plain wrapper steps only after the error."""
    cfg = config(tmp_path, 'lora', True)
    cfg.optim_wrapper = dict(type='OptimWrapper', accumulative_counts=accumulated, optimizer=ADAMW)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(UntrainedError, match='reentrant'):
        runner.train()
    assert runner.iter == 0


def test_a_head_that_is_frozen_too(tmp_path: Path) -> None:
    """Then the loss depends on no parameter, and torch alone would only report a missing gradient."""

    class Frozen(Hook):
        def before_run(self, runner: Runner) -> None:
            runner.model.decode_head.requires_grad_(False)

    cfg = config(tmp_path, 'lora', True, custom_hooks=[dict(type=Frozen)])
    with pytest.raises(UntrainedError, match=r'backbone\.stage\.lora\.a.*reentrant'):
        train(cfg)


def test_compiled_training_has_a_first_iteration(tmp_path: Path) -> None:
    """A compiled model runs without forward hooks, but has gradients."""
    cfg = config(tmp_path, 'gps', None, compile=dict(backend='eager'))
    assert train(cfg).iter == 2


def test_scales_that_no_path_uses_leave_the_base(tmp_path: Path) -> None:
    cfg = config(tmp_path, 'ssf', None)
    state = state_of(train(cfg))
    assert torch.equal(state['backbone.spare.ssf.scale'], torch.ones(16))
    assert not state['backbone.spare.ssf.shift'].any()
    assert (state['backbone.stage.ssf.scale'] != 1).all()


@pytest.mark.parametrize('method', ['gps', 'gps-magnitude', 'spt-lora', 'bias', 'full'])
def test_a_backbone_with_nothing_to_choose(method: str, tmp_path: Path) -> None:
    frozen = tiny_model(frozen_exclude=['nothing'])
    cfg = tune_config(tiny_config(tmp_path, model=frozen), method)
    with pytest.raises(ValueError, match=r'VisionTransformer.* frozen.*; unfreeze some .*mmgps\.LinearProbe'):
        train(cfg)
    assert train(tune_config(tiny_config(tmp_path, model=frozen, max_iters=1), 'linear')).iter == 1


@pytest.mark.parametrize('rate', [dict(lr=0.0), dict(lr=1e-2, lr_mult=0.0)])
def test_a_rate_of_zero_is_named(rate: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mult = rate.pop('lr_mult', 1.0)
    wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', **rate),
        paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=mult))),
    )
    runner = Runner.from_cfg(tune_config(tiny_config(tmp_path, max_iters=1, optim_wrapper=wrapper), 'gps'))
    runner.logger.addHandler(caplog.handler)
    runner.logger.setLevel(logging.WARNING)
    runner.train()
    [said] = [text for text in caplog.messages if 'learning rate of 0' in text]
    assert 'first backbone.' in said
    assert 'lr_mult' in said


@OPTIMIZERS.register_module(force=True)
class Kept(torch.optim.SGD):
    """Optimizer that steps the parameters of its construction, like ZeroRedundancyOptimizer."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, lr)
        self.inner = torch.optim.SGD([value for group in self.param_groups for value in group['params']], lr)

    def step(self, closure=None):
        return self.inner.step(closure)


def test_an_optimizer_that_keeps_its_parameters_elsewhere(tmp_path: Path) -> None:
    wrapper = dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='Kept', lr=0.1))
    with pytest.raises(ValueError, match=r"Kept keeps its parameters in 'inner' .*mmgps\.MaskedTraining"):
        train(tiny_config(tmp_path, optim_wrapper=wrapper))
    late = [dict(type='mmgps.TuneHook', method=METHOD_NAMES['lora'])]
    with pytest.raises(ValueError, match=r"Kept keeps .*type='mmgps\.TunedBackbone'"):
        train(tiny_config(tmp_path / 'late', optim_wrapper=wrapper, custom_hooks=late))
    hooks = [dict(type='mmgps.GPSHook', sparse=dict(type='MaskedTraining'))]
    base = state_of(train(tiny_config(tmp_path / 'base', max_iters=0, optim_wrapper=wrapper, custom_hooks=hooks)))
    state = state_of(train(tiny_config(tmp_path / 'a', max_iters=2, optim_wrapper=wrapper, custom_hooks=hooks)))
    name = 'backbone.layers.0.attn.attn.in_proj_weight'
    assert 0 < int((state[name] != base[name]).sum()) <= 48


def test_what_stands_at_a_layer_that_is_not_called_is_not_merged() -> None:
    """BEiT reads the weight and bias of ``qkv`` itself, so modules at the output of the layer never run."""
    init_default_scope('mmseg')
    net = MODELS.build(
        dict(type='BEiT', img_size=32, patch_size=8, embed_dims=16, num_layers=1, num_heads=2, mlp_ratio=2)
    )
    LoRA(2, parts=('fc1',)).inject(net)
    [site] = [site for site in find_sites(net) if site.reader]
    place(site, low_rank(site, 2, 1.0))
    with pytest.raises(InjectionError, match=r"output of 'layers\.0\.attn\.qkv': BEiTAttention reads its weight"):
        merge_operations(net)


def test_two_processes(tmp_path: Path) -> None:
    """A parameter that one process uses counts as used; also tests ZeroRedundancyOptimizer of torch."""
    run_ranks('untrained_ranks.py', 2, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pt')
        assert found['unused'] == (True, ['branches.2.weight', 'branches.2.bias'])
        assert 'ZeroRedundancyOptimizer keeps its parameters in' in found['compact']
        assert found['masked'].split() == ['0.weight', '0.bias', '2.weight', '2.bias']


@HOOKS.register_module(force=True)
class AddsLate(Hook):
    """Add a parameter to the head after the optimizer was built."""

    def before_run(self, runner: Runner) -> None:
        runner.model.decode_head.late = torch.nn.Parameter(torch.ones(3))


def test_a_parameter_that_comes_after_the_optimizer(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.custom_hooks.insert(0, dict(type='AddsLate'))
    with pytest.raises(UntrainedError, match=r'decode_head\.late'):
        train(cfg)
