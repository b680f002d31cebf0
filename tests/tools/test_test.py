"""tools/test.py scores a checkpoint and draws its predictions."""

import runpy
import sys
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from polyp_files import write_pictures
from tiny import tiny_config, train

from mmgps.utils.requirements import require

require('mmseg')

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Train a checkpoint, and return a call of tools/test.py on it and three pictures, in this process."""
    write_pictures(tmp_path / 'set', 'val', 3)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(32, 32), keep_ratio=False),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]
    prefix = dict(img_path='images/val', seg_map_path='annotations/val')
    data = dict(type='mmgps.PolypDataset', data_root='nowhere', data_prefix=prefix, pipeline=pipeline)
    cfg = tiny_config(
        tmp_path / 'trained',
        max_iters=2,
        test_dataloader=dict(batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data),
        test_evaluator=[dict(type='mmgps.PolypMetric', structure=False, per_image_file=str(tmp_path / 'scores.csv'))],
        test_cfg=dict(),
    )
    cfg.custom_imports = dict(imports=['tiny'])
    cfg.dump(tmp_path / 'config.py')
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    train(cfg)

    def call(*args, **dataset) -> None:
        if dataset:
            cfg.test_dataloader = dict(
                batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset={**data, **dataset}
            )
            cfg.test_evaluator, cfg.test_cfg = [dict(type='IoUMetric')], dict()
            cfg.dump(tmp_path / 'config.py')
        paths = [tmp_path / 'config.py', tmp_path / 'trained/iter_2.pth', '--data-root', tmp_path / 'set']
        named = ['--work-dir', tmp_path / 'tested', '--cfg-options', f'experiment_name={tmp_path.name}-test']
        monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, [*paths, *args, *named])])
        runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')

    return call


def test_the_config_of_a_resumed_run(run, tmp_path: Path) -> None:
    """It sets ``resume``; this tool and mmengine's own runner, like mmseg's tool, have to accept it."""
    with (tmp_path / 'config.py').open('a') as config:
        config.write('\nresume = True\n')
    run()
    assert len((tmp_path / 'scores.csv').read_text().splitlines()) == 1 + 3
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.resume
    cfg.update(load_from=str(tmp_path / 'trained/iter_2.pth'), work_dir=str(tmp_path / 'own'))
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'set')
    cfg.experiment_name = f'{tmp_path.name}-own'
    assert 'Dice' in Runner.from_cfg(cfg).test()


def test_scores_every_image_and_draws_none(run, tmp_path: Path) -> None:
    run()
    assert len((tmp_path / 'scores.csv').read_text().splitlines()) == 1 + 3
    assert not list(tmp_path.rglob('vis_image'))


def test_the_config_of_the_training_stays(run, tmp_path: Path) -> None:
    """A test in the work dir of the training, the default, writes its config to another file."""
    (tmp_path / 'tested').mkdir()
    (tmp_path / 'tested/config.py').write_text('# of the training')
    run()
    assert (tmp_path / 'tested/config.py').read_text() == '# of the training'
    [own] = [path for path in (tmp_path / 'tested').glob('*.py') if path.name != 'config.py']
    assert Config.fromfile(own).test_dataloader.dataset.data_root == str(tmp_path / 'set')


def test_the_method_is_that_of_the_checkpoint(run, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """The command may name another method, but the network is the trained one."""
    with (tmp_path / 'config.py').open('a') as config:
        config.write("\nlog_level = 'INFO'\n")
    run()
    expected = (tmp_path / 'scores.csv').read_text()
    run('--tune', 'ssf', '--tune-options', 'std=9.0')
    assert (tmp_path / 'scores.csv').read_text() == expected
    said = ''.join(capfd.readouterr())
    assert 'trained by gps, the config asks for ssf: the network follows the checkpoint' in said
    assert 'missing keys' not in said


def test_show_dir_draws_every_image(run, tmp_path: Path) -> None:
    run('--show-dir', tmp_path / 'shown')
    pictures = sorted((tmp_path / 'shown/test').glob('*.png'))
    assert [path.name for path in pictures] == ['01_0.png', '02_1.png', '03_2.png', 'contact_sheet.png']
    assert cv2.imread(str(pictures[0])).std() > 10


def test_show_dir_draws_frames_without_files(run, tmp_path: Path) -> None:
    drawn = dict(type='mmgps.SyntheticPolypDataset', length=3, size=32, data_prefix={})
    pipeline = [dict(type='mmgps.RenderFrame'), dict(type='PackSegInputs')]
    run('--show-dir', tmp_path / 'shown', **drawn, pipeline=pipeline)
    pictures = sorted((tmp_path / 'shown/test').glob('*.png'))
    assert len(pictures) == 3 + 1
    assert cv2.imread(str(pictures[0])).std() > 10


def test_show_dir_draws_a_set_of_three_classes_like_mmseg(run, tmp_path: Path) -> None:
    classes = dict(metainfo=dict(classes=('background', 'polyp', 'tool')), img_suffix='.png', reduce_zero_label=False)
    run('--show-dir', tmp_path / 'shown', type='BaseSegDataset', **classes)
    assert len(list((tmp_path / 'shown').rglob('vis_image/*.png'))) == 3


def test_augmentation_needs_views(run) -> None:
    with pytest.raises(ValueError, match=r'--tta needs tta_model and tta_pipeline in the config; add tta_model = dict'):
        run('--tta')
