"""Pure-Python configs name types by classes, and by the paths of modules after they are dumped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from tiny import tiny_config, tiny_model, train

from mmgps.engine import enable_amp, tune_config
from mmgps.engine.configs.config import _classes
from mmgps.engine.hooks import GPSHook, TuneHook
from mmgps.engine.optim import GPSAmpOptimWrapper, GPSOptimWrapper
from mmgps.engine.resuming.exact_resume_hook import ExactResumeHook
from mmgps.engine.tuned_backbone import tuned_backbone

ADAMW = dict(type='AdamW', lr=1e-2)

LAZY = """
from mmengine.optim import OptimWrapper
from mmgps.engine.hooks import GPSHook
from torch.optim import AdamW

optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-2))
custom_hooks = [dict(type=GPSHook, k=1)]
"""


@pytest.mark.parametrize(
    ('given', 'selective'),
    [
        (OptimWrapper, 'mmgps.GPSOptimWrapper'),
        (AmpOptimWrapper, 'mmgps.GPSAmpOptimWrapper'),
        (GPSOptimWrapper, GPSOptimWrapper),
        ('mmengine.OptimWrapper', 'mmgps.GPSOptimWrapper'),
        ('mmengine.optim.optimizer.optimizer_wrapper.OptimWrapper', 'mmgps.GPSOptimWrapper'),
    ],
)
def test_the_wrapper_is_swapped(given: object, selective: object, tmp_path: Path) -> None:
    cfg = tune_config(tiny_config(tmp_path, optim_wrapper=dict(type=given, optimizer=ADAMW)), 'gps')
    assert cfg.optim_wrapper.type == selective


@pytest.mark.parametrize(
    ('given', 'mixed'),
    [
        (OptimWrapper, 'AmpOptimWrapper'),
        (GPSOptimWrapper, 'mmgps.GPSAmpOptimWrapper'),
        (GPSAmpOptimWrapper, GPSAmpOptimWrapper),
    ],
)
def test_amp_swaps_the_wrapper(given: type, mixed: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = tiny_config(tmp_path, optim_wrapper=dict(type=given, optimizer=ADAMW))
    enable_amp(cfg)
    assert cfg.optim_wrapper.type == mixed
    several = dict(constructor='Several', **{part: dict(type=given, optimizer=ADAMW) for part in 'ab'})
    cfg = tiny_config(tmp_path, optim_wrapper=several)
    enable_amp(cfg)
    assert [cfg.optim_wrapper[part].type for part in 'ab'] == [mixed, mixed]
    assert 'type' not in cfg.optim_wrapper


def test_a_lazy_config_trains_by_another_method(tmp_path: Path) -> None:
    (tmp_path / 'lazy.py').write_text(LAZY)
    cfg = tiny_config(tmp_path, max_iters=1)
    lazy = Config.fromfile(tmp_path / 'lazy.py')
    cfg.optim_wrapper, cfg.custom_hooks = lazy.optim_wrapper, lazy.custom_hooks
    tune_config(cfg, 'gps', dict(k=2))
    assert [hook.type for hook in cfg.custom_hooks] == ['mmgps.TuneHook', 'mmgps.ExactResumeHook']
    assert train(cfg).iter == 1


def test_hooks_and_backbones_given_as_classes_are_replaced(tmp_path: Path) -> None:
    model = tiny_model()
    model['backbone'] = dict(type=tuned_backbone, backbone=model['backbone'], method=dict(type='mmgps.LoRA', rank=2))
    cfg = tiny_config(tmp_path, model=model, custom_hooks=[dict(type=TuneHook), dict(type=ExactResumeHook)])
    tune_config(cfg, 'gps')
    assert cfg.model.backbone.type == 'VisionTransformer'
    assert [hook.type for hook in cfg.custom_hooks] == [ExactResumeHook, 'mmgps.TuneHook']


def test_a_hook_of_the_same_name_that_is_not_of_mmgps_stays(tmp_path: Path) -> None:
    class GPSHook(TuneHook):
        """Class of another package under the same name."""

    own = dict(type=GPSHook)
    assert own in tune_config(tiny_config(tmp_path, custom_hooks=[own]), 'bias').custom_hooks


def test_the_classes_of_a_test_set_given_as_a_class(tmp_path: Path) -> None:
    from mmgps.datasets import PolypDataset

    cfg = tiny_config(tmp_path, test_dataloader=dict(dataset=dict(type=PolypDataset)))
    assert _classes(cfg) == 2


def test_gps_hook_as_a_class_is_known(tmp_path: Path) -> None:
    cfg = tune_config(tiny_config(tmp_path, custom_hooks=[dict(type=GPSHook, num_batches=3)]), 'gps')
    assert next((hook.type, hook.get('num_batches')) for hook in cfg.custom_hooks) == ('mmgps.TuneHook', 3)
