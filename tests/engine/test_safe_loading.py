"""No function executes code in a checkpoint, and every function names a file that it cannot read."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_server import FileServer
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from tiny import PIPELINE, assert_same_bits, state_of, tiny_config, train

from mmgps.benchmark import Setup
from mmgps.delta import extract, save_delta
from mmgps.delta.base import BaseFingerprint
from mmgps.engine import CheckpointFileError, build_base, build_runner, init_bank, init_model, tune_config, weights_only
from mmgps.engine.safe_loading import FORCE, TRUST, load_plain
from mmgps.models import SAMPretrained
from mmgps.models.convert import extract_backbone
from mmgps.tuning import BiasTuning

ROOT = Path(__file__).resolve().parents[2]


class Code:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


class Scene:
    """Config, file with code in it, and delta of a test."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.executed, self.bad = folder / 'executed', folder / 'bad.pth'
        torch.manual_seed(1)
        self.model: Any = init_model(tiny_config(folder))
        state = self.model.state_dict()
        content = {'meta': {'epoch': 0, 'iter': 2}, 'state_dict': state, 'message_hub': {}, 'x': Code(self.executed)}
        torch.save(content, self.bad)
        self.backbone = folder / 'backbone.pth'
        torch.save(self.model.backbone.state_dict(), self.backbone)

    def config(self, **changes: Any) -> Config:
        cfg = tiny_config(self.folder / 'run', max_iters=2, **changes)
        cfg.custom_imports = dict(imports=['tiny'])
        return cfg

    def starting_from(self, file: Path, **changes: Any) -> Config:
        cfg = self.config(**changes)
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(file))
        return cfg

    def tested(self) -> Config:
        return self.config(
            test_dataloader=dict(
                batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='TinyPictures')
            ),
            test_evaluator=[dict(type='IoUMetric')],
            test_cfg=dict(),
            tta_model=dict(type='mmgps.SegTTAModel'),
            tta_pipeline=PIPELINE,
        )

    def delta(self) -> Path:
        method = BiasTuning()
        backbone = self.model.backbone
        selection = method.select(backbone)
        save_delta(
            extract(self.model, selection, BaseFingerprint.of(backbone, selection)), self.folder / 'd.safetensors'
        )
        return self.folder / 'd.safetensors'

    def tool(self, name: str, cfg: Config, *words: object) -> None:
        cfg.dump(self.folder / 'config.py')
        self.patch.chdir(self.folder)
        named = [self.folder / 'config.py' if word is cfg else word for word in words]
        self.patch.setattr(sys, 'argv', [name, *map(str, named)])
        runpy.run_path(str(ROOT / 'tools' / f'{name}.py'), run_name='__main__')


def _train(s: Scene, cfg: Config, *words: object) -> None:
    s.tool('train', cfg, cfg, *words)


def _delta(s: Scene, command: str, cfg: Config, *words: object) -> None:
    s.tool('delta', cfg, command, cfg, *words)


def _auto(s: Scene) -> None:
    (s.folder / 'run').mkdir()
    (s.folder / 'run' / 'last_checkpoint').write_text(str(s.bad))
    _train(s, s.config(), '--resume')


def _from_server(s: Scene) -> None:
    s.patch.setenv('TORCH_HOME', str(s.folder / 'hub'))
    with FileServer(s.bad.read_bytes()) as server:
        cfg = s.config()
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=server.url('/bad.pth'))
        build_base(cfg)


def _tuned(s: Scene, **options: Any) -> None:
    init_default_scope('mmseg')
    backbone = {**s.config().model.backbone, **options.pop('backbone', {})}
    method = dict(type='mmgps.LoRA', rank=2)
    MODELS.build(dict(type='mmgps.TunedBackbone', backbone=backbone, method=method, **options)).init_weights()


def _in_segmentor(s: Scene) -> None:
    cfg = s.config()
    cfg.model.pretrained = str(s.bad)
    init_model(tune_config(cfg, 'lora'))


def _mm_runner(s: Scene, **changes: Any) -> None:
    Runner.from_cfg(s.config(**changes)).train()


def _flexible(s: Scene, cfg: Config) -> None:
    cfg.runner_type, cfg.env_cfg = 'FlexibleRunner', {}
    build_runner(cfg).train()


def _compare_child(s: Scene) -> None:
    from mmgps.compare.child import train as train_child
    from mmgps.utils.atomic_file import write_json

    folder = s.folder / 'trial'
    folder.mkdir()
    write_json(folder / 'run.json', dict(target='backbone', backbone_lr=0.1, trial=True))
    s.config().dump(folder / 'config.py')
    (folder / 'last_checkpoint').write_text(str(s.bad))
    train_child(folder)


WAYS: dict[str, Callable[[Scene], Any]] = {
    'train --resume FILE': lambda s: _train(s, s.config(), '--resume', s.bad),
    'train --resume': _auto,
    'train load_from': lambda s: _train(s, s.config(load_from=str(s.bad))),
    'train init_cfg': lambda s: _train(s, s.starting_from(s.bad)),
    'train --tune, init_cfg': lambda s: _train(s, s.starting_from(s.bad), '--tune', 'lora'),
    'train without a hook of mmgps': lambda s: _train(s, s.config(load_from=str(s.bad), custom_hooks=[])),
    'test': lambda s: s.tool('test', cfg := s.tested(), cfg, s.bad),
    'test --tta': lambda s: s.tool('test', cfg := s.tested(), cfg, s.bad, '--tta'),
    'delta extract': lambda s: _delta(s, 'extract', s.config(), s.bad, 'out.safetensors'),
    'delta extract --base': lambda s: _delta(s, 'extract', s.config(), s.bad, 'o.safetensors', '--base', s.bad),
    'delta apply, init_cfg': lambda s: _delta(s, 'apply', s.starting_from(s.bad), s.delta(), 'out.pth'),
    'delta apply, load_from': lambda s: _delta(s, 'apply', s.config(load_from=str(s.bad)), s.delta(), 'out.pth'),
    'delta apply --base': lambda s: _delta(s, 'apply', s.config(), s.delta(), 'out.pth', '--base', s.bad),
    'delta merge': lambda s: _delta(s, 'merge', s.starting_from(s.bad), s.delta(), 'out.pth'),
    'delta verify': lambda s: _delta(s, 'verify', s.starting_from(s.bad), s.delta()),
    'delta verify --checkpoint': lambda s: _delta(
        s, 'verify', s.starting_from(s.backbone), s.delta(), '--checkpoint', s.bad
    ),
    'build_base': lambda s: build_base(s.config(), s.bad),
    'init_model, base': lambda s: init_model(s.config(), s.bad),
    'init_model, init_cfg': lambda s: init_model(s.starting_from(s.bad)),
    'init_model, address': _from_server,
    'init_bank': lambda s: init_bank(s.starting_from(s.bad)),
    'TunedBackbone(pretrained)': lambda s: _tuned(s, pretrained=str(s.bad)),
    'TunedBackbone, init_cfg': lambda s: _tuned(s, backbone=s.starting_from(s.bad).model.backbone),
    'pretrained of a segmentor': _in_segmentor,
    "mmengine's runner, load_from": lambda s: _mm_runner(s, load_from=str(s.bad)),
    "mmengine's runner, resume": lambda s: _mm_runner(s, load_from=str(s.bad), resume=True),
    'build_runner': lambda s: build_runner(s.config(load_from=str(s.bad))).train(),
    'build_runner, FlexibleRunner': lambda s: _flexible(s, s.config(load_from=str(s.bad))),
    'build_runner, FlexibleRunner, init_cfg': lambda s: _flexible(s, s.starting_from(s.bad)),
    'extract_backbone': lambda s: extract_backbone(s.bad, s.folder / 'out.pth'),
    'convert_vit': lambda s: s.tool('convert_vit', s.config(), s.bad, s.folder / 'out.pth'),
    'SAMPretrained': lambda s: SAMPretrained(str(s.bad))(torch.nn.Identity()),
    'benchmark, init_cfg': lambda s: Setup(s.starting_from(s.bad)).build(),
    'benchmark, load_from': lambda s: Setup(s.config(load_from=str(s.bad))).build(),
    'run of compare': _compare_child,
}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.delenv(FORCE, raising=False)
    return Scene(tmp_path, monkeypatch)


@pytest.mark.parametrize('damage', ['code', 'truncated'])
@pytest.mark.parametrize('way', WAYS.values(), ids=WAYS)
def test_nothing_is_executed_and_the_file_is_named(way: Callable[[Scene], Any], damage: str, scene: Scene) -> None:
    if damage == 'truncated':
        torch.save({'state_dict': scene.model.state_dict()}, scene.bad)
        scene.bad.write_bytes(scene.bad.read_bytes()[:-3000])
    with pytest.raises((ValueError, SystemExit), match=r'bad\.pth') as caught:
        way(scene)
    assert damage == 'truncated' or not scene.executed.exists()
    error: Any = caught.value
    assert isinstance(error, SystemExit | CheckpointFileError) or 'cannot resume' in str(error)
    assert FORCE not in os.environ
    assert 'mmgps' not in CheckpointLoader.load_checkpoint.__module__
    with weights_only():  # still works
        pass


def test_the_code_is_such(scene: Scene) -> None:
    """Otherwise the other tests could not fail."""
    torch.load(scene.bad, weights_only=False)
    assert scene.executed.exists()


def test_who_trusts_a_file_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch of torch trusts the file."""
    monkeypatch.setenv(TRUST, '1')
    with weights_only():
        load_checkpoint(init_model(scene.config()), str(scene.bad), map_location='cpu')
    assert scene.executed.exists()


def test_files_of_mmengine_load_as_they_do_without(tmp_path: Path) -> None:
    """They hold logs, NumPy numbers and arrays, since the hook that converts them is left out."""
    cfg = tiny_config(tmp_path, max_iters=2, custom_hooks=[])
    cfg.optim_wrapper.type = 'OptimWrapper'
    runner = Runner.from_cfg(cfg)
    info = {'best': np.float64(3), 'at': np.int64(2), 'yes': np.bool_(True), 'many': np.arange(3, dtype=np.uint8)}
    for name, value in info.items():
        runner.message_hub.update_info(name, value)
    runner.train()
    file = tmp_path / 'iter_2.pth'
    with weights_only():
        loaded = CheckpointLoader.load_checkpoint(str(file), 'cpu')
    for found in (loaded, load_plain(file)):
        hub = found['message_hub']
        assert hub['log_scalars']['train/loss'].mean() > 0
        assert all(np.array_equal(hub['runtime_info'][name], value) for name, value in info.items())
        assert_same_bits(dict(found['state_dict']), state_of(runner))


def test_an_attribute_of_anything_else_is_no_statistic(tmp_path: Path) -> None:
    """mmengine's fork allows ``getattr``, by which a file could reach anything."""

    class Reach:
        def __reduce__(self) -> Any:
            return getattr, (torch.Tensor, '__init__')

    torch.save({'x': Reach()}, tmp_path / 'reach.pth')
    with pytest.raises(CheckpointFileError, match='__init__'):
        load_plain(tmp_path / 'reach.pth')


def test_own_checkpoints_resume_where_torch_is_told_to_execute_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FORCE, '1')
    cfg = tiny_config(tmp_path, max_iters=4)
    whole = state_of(train(cfg))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    cfg.resume = True
    cfg.experiment_name += 'again'
    assert_same_bits(state_of(train(cfg)), whole)
    assert os.environ[FORCE] == '1'


@weights_only()
def _fail_within() -> None:
    raise RuntimeError('within')


def test_blocks_lie_within_each_other_and_children_inherit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FORCE, '0')
    before = CheckpointLoader.load_checkpoint
    with weights_only():
        with pytest.raises(RuntimeError, match='within'):
            _fail_within()
        read = [sys.executable, '-c', f'import os; print(os.environ[{FORCE!r}])']
        assert subprocess.run(read, capture_output=True, text=True, check=True).stdout == '1\n'
    assert os.environ[FORCE] == '0'
    assert CheckpointLoader.load_checkpoint == before
