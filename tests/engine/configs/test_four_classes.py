"""Metrics and drawings of a validation support any number of classes of a data set or a network."""

from pathlib import Path

import cv2
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.runner import Runner
from tiny import PIPELINE, DrawTiny, TinyPictures, tiny_config, train

from mmgps.registry import HOOKS
from mmgps.utils.requirements import require

require('mmseg')


@DATASETS.register_module(force=True)
class FourClasses(TinyPictures):
    METAINFO = dict(
        classes=('ground', 'square', 'sky', 'sea'), palette=[[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]]
    )


@TRANSFORMS.register_module(force=True)
class DrawFour(DrawTiny):
    """Labels: the square, a band of sky above it, a band of sea below, and an ignored column."""

    def transform(self, results: dict) -> dict:
        results = super().transform(results)
        labels = results['gt_seg_map']
        labels[:2], labels[-2:], labels[:, 31] = 2, 3, 255
        return results


@HOOKS.register_module(force=True)
class PredictsSea(Hook):
    """Make the network predict its last class, which a data set of two classes does not name."""

    def before_val_epoch(self, runner: Runner) -> None:
        runner.model.decode_head.conv_seg.bias.data[3] = 100.0


def config(work_dir: Path, dataset: str, outputs: int, evaluator: dict, **changes) -> Config:
    cfg = tiny_config(work_dir, max_iters=2, **changes)
    draw = dict(type='DrawFour' if dataset == 'FourClasses' else 'DrawTiny')
    cfg.train_dataloader.dataset.update(type=dataset, pipeline=[draw, *PIPELINE[1:]])
    cfg.model.decode_head.num_classes = outputs
    cfg.train_cfg.val_interval = 1
    data = dict(type=dataset, count=3, pipeline=[draw, PIPELINE[2]])
    cfg.val_dataloader = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data)
    cfg.val_cfg, cfg.val_evaluator = dict(type='ValLoop'), evaluator
    return cfg


@pytest.mark.parametrize(
    ('dataset', 'outputs', 'message'),
    [
        ('FourClasses', 4, r'the data set has 4 classes \(ground, square, sky, sea\) and mmgps.PolypMetric scores two'),
        ('TinyPictures', 4, r"the network predicts 4 classes .*type='IoUMetric'.* set num_classes=2 of its heads"),
    ],
)
def test_a_metric_of_two_classes_is_refused_before_selecting(dataset, outputs, message, tmp_path: Path) -> None:
    cfg = config(tmp_path, dataset, outputs, dict(type='mmgps.PolypMetric'))
    cfg.custom_hooks.append(dict(type='mmgps.BeforeAfterHook'))
    with pytest.raises(ValueError, match=message):
        train(cfg)
    assert not (tmp_path / 'selection.safetensors').exists()


@pytest.mark.parametrize('dataset', ['FourClasses', 'TinyPictures'])
def test_overlays_and_scores_before_and_after(dataset: str, tmp_path: Path) -> None:
    cfg = config(tmp_path, dataset, 4, dict(type='IoUMetric', iou_metrics=['mDice']), log_level='INFO')
    cfg.custom_hooks += [dict(type='mmgps.OverlayHook', num_images=2), dict(type='mmgps.BeforeAfterHook')]
    cfg.custom_hooks.append(dict(type='mmgps.PredictsSea'))
    runner = train(cfg)
    pictures = sorted(path.name for path in Path(runner.log_dir, 'overlays/val').iterdir())
    assert pictures == ['01_0.png', '02_2.png', 'contact_sheet.png']
    drawn = cv2.imread(str(Path(runner.log_dir, 'overlays/val/01_0.png')))
    assert drawn.shape == (320, 2 * 320 + 8, 3)
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert 'validation set, before and after training\nscore' in log
