"""Complete runs on CUDA: the polyp config in each precision, a killed and resumed run, and a step of SAM."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny import assert_same_bits, state_of, stop_workers

from mmgps.engine import TuneHook, find_backbone
from mmgps.engine.configs.config import set_data_root

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
WRAPPERS: dict[str, dict[str, Any]] = {
    'float32': dict(type='mmgps.GPSOptimWrapper'),
    'bfloat16': dict(type='mmgps.GPSAmpOptimWrapper', dtype='bfloat16'),
    # the first steps overflow at this scale
    'float16': dict(
        type='mmgps.GPSAmpOptimWrapper', dtype='float16', loss_scale=dict(init_scale=2.0**30, growth_interval=2000)
    ),
}


class Watch(Hook):
    """Records the losses, and the states before and after the first iteration."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 0:
            self.before = state_of(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses.append(outputs['loss'].item())
        if runner.iter == 0:
            self.after = state_of(runner)


def polyp_config(data: Path, work_dir: Path, iterations: int, batch: int) -> Config:
    cfg = Config.fromfile(ROOT / 'configs/polyp/gps_deit-tiny_kvasir.py')
    set_data_root(cfg, str(data / 'kvasir_seg_352'))
    cfg.model.backbone.init_cfg.checkpoint = str(data / 'deit_tiny_mmseg.pth')
    cfg.train_dataloader.update(batch_size=batch, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.indices = iterations * batch
    cfg.train_cfg.update(max_epochs=1)
    cfg.param_scheduler = None
    for part in ('val', 'test'):
        cfg.update({f'{part}_dataloader': None, f'{part}_evaluator': None, f'{part}_cfg': None})
    cfg.custom_hooks = [dict(type='mmgps.GPSHook', k=1, num_batches=2)]
    cfg.log_level, cfg.work_dir = 'ERROR', str(work_dir)
    return cfg


@pytest.mark.parametrize('precision', WRAPPERS)
def test_the_polyp_config(device: str, toy: bool, real_data: Path, tmp_path: Path, precision: str) -> None:
    if toy and precision != 'float32':
        pytest.skip("mmengine's mixed precision needs CUDA; tests/sparse/test_amp_wrapper.py has it on the CPU")
    cfg = polyp_config(real_data, tmp_path, 3 if toy else 20, 2 if toy else 8)
    cfg.optim_wrapper.update(WRAPPERS[precision])
    watch = Watch()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(watch, priority='LOWEST')
    runner.train()
    stop_workers(runner)
    backbone, after = find_backbone(runner.model, 'backbone'), state_of(runner)
    assert next(backbone.parameters()).device.type == device
    assert len(watch.losses) == (3 if toy else 20)
    assert all(map(math.isfinite, watch.losses)), watch.losses
    [selection] = [hook.selection for hook in runner.hooks if isinstance(hook, TuneHook)]
    whole, moved = set(selection.whole), 0
    masks = {p.name: c.mask(p.neurons).to(device) for p, c in selection.resolve(backbone)}
    for name, _ in backbone.named_parameters():
        changed = after[f'backbone.{name}'] != watch.before[f'backbone.{name}']
        if name not in whole:
            assert not changed[~masks[name]].any() if name in masks else not changed.any(), name
        moved += int(changed.sum())
    assert moved > 0.9 * (len(selection) + sum(dict(backbone.named_parameters())[n].numel() for n in whole))
    if precision == 'float16':
        parameters = dict(runner.model.named_parameters())
        assert_same_bits(*({n: s[n] for n in parameters} for s in (watch.after, watch.before)))
        assert runner.optim_wrapper.loss_scaler.get_scale() < 2.0**30


def run_demo(work_dir: Path, *at: int) -> subprocess.Popen:
    script, config = ROOT / 'tests/support/killed_run.py', ROOT / 'tests/support/deterministic_demo.py'
    paths = os.pathsep.join([str(ROOT), str(ROOT / 'tests/support'), *filter(None, [os.environ.get('PYTHONPATH')])])
    environment = {**os.environ, 'PYTHONPATH': paths, 'CUBLAS_WORKSPACE_CONFIG': ':4096:8'}
    command = [sys.executable, script, config, work_dir, *at]
    return subprocess.Popen(
        [str(part) for part in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_killed_and_resumed_is_uninterrupted(device: str, toy: bool, tmp_path: Path) -> None:
    """Both runs end with the same bits, given the deterministic algorithms of torch."""
    whole, cut = run_demo(tmp_path / 'whole'), run_demo(tmp_path / 'cut', 7)
    said = [cut.communicate()[0], whole.communicate()[0]]
    assert (cut.returncode, whole.returncode) == (-9, 0), '\n'.join(said)[-4000:]
    resumed = run_demo(tmp_path / 'cut')
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output[-3000:]
    assert 'selection restored from the checkpoint' in output
    first, second = (
        torch.load(tmp_path / name / 'iter_10.pth', weights_only=True, map_location='cpu') for name in ('cut', 'whole')
    )
    assert_same_bits(first['state_dict'], second['state_dict'])
    for key, state in second['optimizer']['state'].items():
        assert_same_bits(first['optimizer']['state'][key], state)


@pytest.mark.parametrize('method', ['full', 'bias', 'gps'])
def test_a_step_of_sam(device: str, toy: bool, method: str) -> None:
    from mmgps.benchmark import Setup
    from mmgps.benchmark.recipes import MethodRecipe, Selected
    from mmgps.benchmark.setup import Rig
    from mmgps.sparse import CompactTraining
    from mmgps.tuning import GPS, BiasTuning, FullTuning

    name = 'full_sam-mini_kvasir-128.py' if toy else 'full_sam-vit-b_kvasir-1024.py'
    cfg = Config.fromfile(ROOT / 'configs/sam' / name)
    cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
    setup = Setup(cfg, device=device)
    model = setup.build()
    batch = synthetic_batch(model, 128 if toy else 1024)
    backbone = find_backbone(model, 'backbone')
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    recipe = MethodRecipe({'full': FullTuning, 'bias': BiasTuning}.get(method, BiasTuning)())
    if method == 'gps':
        recipe = Selected(GPS(1).select(backbone, setup.gradients(model, [batch])), CompactTraining)
    rig = Rig(setup, model, recipe)
    assert rig.trained < sum(value.numel() for value in model.parameters()) or method == 'full'
    rig.step(batch)
    changed = sum(int((value != before[name]).sum()) for name, value in backbone.state_dict().items())
    selection = rig.tuned.selection
    whole = sum(dict(backbone.named_parameters())[name].numel() for name in selection.whole)
    assert 0 < changed <= len(selection) + whole
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def synthetic_batch(model: torch.nn.Module, side: int) -> dict[str, Any]:
    """Make a batch with one picture of noise and a bright square as the truth."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=(side, side), ori_shape=(side, side)))
    truth = torch.zeros(1, side, side, dtype=torch.long)
    truth[:, side // 4 : side // 2, side // 4 : side // 2] = 1
    sample.gt_sem_seg = PixelData(data=truth)
    picture = torch.randint(0, 120, (3, side, side), dtype=torch.uint8)
    picture[:, side // 4 : side // 2, side // 4 : side // 2] += 100
    return dict(inputs=[picture], data_samples=[sample])
