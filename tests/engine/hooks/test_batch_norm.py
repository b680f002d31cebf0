"""Statistics of norms are buffers: they follow the mode of the norm, not the method, as in any training of mmseg."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny import state_of, tiny_config, tiny_model, train
from torch.nn.modules.batchnorm import _BatchNorm

from mmgps.engine import TuneHook

METHODS = ['LinearProbe', 'BiasTuning', 'GPS', 'LoRA']


def resnet_config(work_dir: Path, method: str, **backbone) -> Config:
    model = tiny_model()
    sizes = dict(depth=18, base_channels=8, stem_channels=8, num_stages=2, out_indices=(1,))
    model['backbone'] = dict(type='ResNet', strides=(1, 2), dilations=(1, 1), **sizes, **backbone)
    hook = dict(type='mmgps.TuneHook', method=dict(type=f'mmgps.{method}'))
    return tiny_config(work_dir, max_iters=4, model=model, custom_hooks=[hook])


def moved_buffers_and_frozen(cfg: Config) -> tuple[set[str], set[str]]:
    """Names of the moved buffers of the backbone, and of its frozen parameters that moved."""
    start = cfg.copy()
    start.train_cfg, start.param_scheduler = dict(type='IterBasedTrainLoop', max_iters=0), None
    start.work_dir, start.experiment_name = f'{cfg.work_dir}-start', f'{cfg.experiment_name}-start'
    before, runner = state_of(train(start)), train(cfg)
    backbone = runner.model.backbone
    [hook] = [hook for hook in runner.hooks if isinstance(hook, TuneHook)]
    masks = {p.name: connections.mask(p.neurons) for p, connections in hook.selection.resolve(backbone)}
    masks |= {name: torch.ones_like(backbone.get_parameter(name), dtype=torch.bool) for name in hook.selection.whole}

    def moved(name: str, value: torch.Tensor) -> bool:
        differ = value != before[f'backbone.{name}']
        return bool((differ & ~masks[name] if name in masks else differ).any())

    buffers = {name for name, value in backbone.named_buffers() if moved(name, value)}
    return buffers, {name for name, value in backbone.named_parameters() if moved(name, value)}


@pytest.mark.parametrize('method', METHODS)
def test_under_norm_eval_every_number_stays(method: str, tmp_path: Path) -> None:
    assert moved_buffers_and_frozen(resnet_config(tmp_path / 'run', method, norm_eval=True)) == (set(), set())


@pytest.mark.parametrize('method', METHODS)
def test_without_it_only_the_statistics_of_norms_move(method: str, tmp_path: Path) -> None:
    cfg = resnet_config(tmp_path / 'run', method)
    buffers, frozen = moved_buffers_and_frozen(cfg)
    assert frozen == set()
    kinds = {name.rpartition('.')[2] for name in buffers}
    assert kinds == {'running_mean', 'running_var', 'num_batches_tracked'}


def test_frozen_stages_keep_their_statistics(tmp_path: Path) -> None:
    runner = train(resnet_config(tmp_path / 'run', 'BiasTuning', frozen_stages=1))
    norms = {name: m for name, m in runner.model.backbone.named_modules() if isinstance(m, _BatchNorm)}
    seen = {name: int(norm.num_batches_tracked) for name, norm in norms.items()}
    assert {count for name, count in seen.items() if name.startswith(('bn1', 'layer1'))} == {0}
    assert {count for name, count in seen.items() if name.startswith('layer2')} == {4}
