"""The config of the reduced SAM on a few pictures: resuming, test-time augmentation, and mmseg's API."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.apis import inference_model, init_model
from polyp_files import write_pictures
from tiny import assert_same_bits, train

from mmgps.engine.configs.config import set_data_root

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/sam/gps_sam-mini_kvasir-128.py'


def sam_config(data: Path, work_dir: Path, **changes) -> Config:
    """Return a config for four iterations of two pictures, from random weights."""
    cfg = Config.fromfile(CONFIG)
    set_data_root(cfg, str(data))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.max_iters = 4
    cfg.custom_hooks[0].num_batches = 2
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.default_hooks.checkpoint.update(interval=2, max_keep_ckpts=-1)
    cfg.work_dir, cfg.log_level = str(work_dir), 'ERROR'
    cfg.experiment_name = f'{work_dir.name}-{work_dir.parent.name}'
    cfg.update(changes)
    return cfg


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('set')
    write_pictures(folder, 'train', 6)
    write_pictures(folder, 'val', 3)
    return folder


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work dir of an uninterrupted run."""
    work_dir = tmp_path_factory.mktemp('sam') / 'whole'
    train(sam_config(data, work_dir))
    return work_dir


def test_resumed_equals_uninterrupted(data: Path, trained: Path, tmp_path: Path) -> None:
    train(sam_config(data, tmp_path / 'cut', resume=True, load_from=str(trained / 'iter_2.pth')))
    found, half, whole = (
        torch.load(path, weights_only=True)
        for path in (tmp_path / 'cut/iter_4.pth', trained / 'iter_2.pth', trained / 'iter_4.pth')
    )
    assert_same_bits(found['state_dict'], whole['state_dict'])
    moments = [
        {f'{at}.{name}': value for at, state in one['optimizer']['state'].items() for name, value in state.items()}
        for one in (found, whole)
    ]
    assert_same_bits(*moments)
    moved = [name for name, value in whole['state_dict'].items() if not torch.equal(value, half['state_dict'][name])]
    assert {name.partition('.')[0] for name in moved} == {'backbone', 'decode_head'}


def scores(config: Path, trained: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[str]:
    """Return the rows of scores per image from tools/test.py."""
    work = ['--work-dir', str(out), '--cfg-options', f'experiment_name={out.name}-{out.parent.name}']
    monkeypatch.setattr(sys, 'argv', ['test.py', str(config), str(trained / 'iter_4.pth'), *options, *work])
    runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')
    return (out.parent / 'scores.csv').read_text().splitlines()


def test_augmentation_by_the_tool(data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tools/test.py scores the structure of the merged map, and draws pictures."""
    cfg = sam_config(data, tmp_path / 'unused')
    cfg.test_evaluator[0].per_image_file = str(tmp_path / 'scores.csv')
    cfg.default_hooks.pop('overlays')
    cfg.dump(tmp_path / 'config.py')
    plain = scores(tmp_path / 'config.py', trained, tmp_path / 'plain', monkeypatch)
    shown = ('--tta', '--show-dir', str(tmp_path / 'shown'))
    merged = scores(tmp_path / 'config.py', trained, tmp_path / 'tta', monkeypatch, *shown)
    assert len(plain) == len(merged) == 1 + 3
    assert plain[0] == merged[0]
    assert 'Sm' in plain[0]
    assert plain[1:] != merged[1:]
    assert len(list((tmp_path / 'shown/test').glob('0*.png'))) == 3


@pytest.mark.parametrize('given', ['path', 'array'])
def test_the_api_of_mmseg(given: str, data: Path, trained: Path) -> None:
    """The config that the run wrote loads the tuned checkpoint and predicts with its weights."""
    [path] = trained.glob('*.py')
    model = init_model(str(path), str(trained / 'iter_4.pth'), device='cpu')
    assert model.dataset_meta['classes'] == ('background', 'polyp')
    image = next((data / 'images/val').iterdir())
    found = inference_model(model, str(image) if given == 'path' else np.zeros((72, 96, 3), np.uint8))
    assert found.pred_sem_seg.data.shape == (1, 72, 96)
    assert torch.equal(found.pred_sem_seg.data[0] == 1, found.seg_logits.data[1] > 0)
    saved = torch.load(trained / 'iter_4.pth', weights_only=True)['state_dict']
    assert_same_bits(dict(model.state_dict()), saved)


def test_the_api_of_mmseg_without_a_checkpoint() -> None:
    """On the flagship's config this fetches nothing, because it initialises no weights."""
    small = dict(embed_dims=16, depth=2, num_heads=2, global_blocks=[1])
    cfg = Config.fromfile(ROOT / 'configs/gps_polyp.py')
    cfg.model.backbone.update(arch=small)
    cfg.test_pipeline[1].scale = (64, 64)
    model = init_model(cfg, None, device='cpu')
    found = inference_model(model, np.zeros((48, 80, 3), np.uint8))
    assert found.seg_logits.data.shape == (2, 48, 80)


@pytest.mark.parametrize(
    ('config', 'views'),
    [
        ('configs/gps_polyp.py', 2),
        ('configs/sam/full_sam-mini_kvasir-128.py', 2),
        ('configs/polyp/gps_deit-tiny_kvasir.py', 3),
        ('configs/gps_polyp_demo.py', 3),
    ],
)
def test_the_first_view_of_a_shipped_config_is_the_plain_one(config: str, views: int, data: Path) -> None:
    from mmengine.registry import DATASETS

    from mmgps.engine import augment_test

    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / config)
    if 'data_root' in cfg:
        set_data_root(cfg, str(data))
    plain = DATASETS.build(cfg.test_dataloader.dataset)[0]
    augment_test(cfg)
    assert cfg.model.type == 'mmgps.SegTTAModel'
    found = DATASETS.build(cfg.test_dataloader.dataset)[0]
    assert len(found['inputs']) == views
    assert torch.equal(found['inputs'][0], plain['inputs'])
    truths = [sample.gt_sem_seg.data for sample in found['data_samples']]
    assert torch.equal(truths[0], plain['data_samples'].gt_sem_seg.data)
    assert all(not torch.equal(found['inputs'][0], other) for other in found['inputs'][1:])
    assert [sample.flip for sample in found['data_samples']] == [False] + [True] * (views - 1)
