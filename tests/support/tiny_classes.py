"""A classifier of mmpretrain, a data set and a config that train in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('mmpretrain', reason='mmpretrain is not installed on this stack')

from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, TRANSFORMS
from tiny import tiny_config

BACKBONES = {
    'vit': dict(
        type='VisionTransformer',
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        img_size=32,
        patch_size=8,
    ),
    'swin': dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2]),
        img_size=32,
        window_size=4,
        pad_small_map=True,
        drop_path_rate=0.0,
        out_indices=(1,),
    ),
    'convnext': dict(type='ConvNeXt', arch=dict(depths=[1, 1], channels=[8, 16]), drop_path_rate=0.0, out_indices=(1,)),
    'resnet': dict(
        type='ResNet', depth=18, base_channels=8, stem_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1),
        out_indices=(1,), norm_eval=True,
    ),
}  # fmt: skip
POOLED = {'swin', 'resnet'}


@DATASETS.register_module(force=True)
class TinyClasses(BaseDataset):
    """Pictures whose class is the corner that is bright.

    Args:
        labels: Class of each picture.
    """

    METAINFO = dict(classes=('a', 'b', 'c'))

    def __init__(self, labels: tuple[int, ...] = (0, 1, 2) * 4, **options: Any) -> None:
        self.labels = labels
        super().__init__(serialize_data=False, **options)

    def load_data_list(self) -> list[dict]:
        return [dict(number=at, gt_label=label, img_path=f'{at}.png') for at, label in enumerate(self.labels)]

    def get_cat_ids(self, at: int) -> list[int]:
        return [self.get_data_info(at)['gt_label']]


@TRANSFORMS.register_module(force=True)
class DrawClass(BaseTransform):
    """Draw picture ``number`` with noise from NumPy's global generator, like an augmentation."""

    def transform(self, results: dict) -> dict:
        image = np.random.default_rng(results['number']).integers(0, 120, (32, 32, 3)).astype(np.float32)
        y, x = divmod(results['gt_label'], 2)
        image[16 * y : 16 * y + 16, 16 * x : 16 * x + 16] += 100
        image += np.random.normal(0, 5, image.shape)  # noqa: NPY002
        results.update(img=image, img_shape=(32, 32), ori_shape=(32, 32))
        return results


@TRANSFORMS.register_module(force=True)
class DrawView(DrawClass):
    """Like :class:`DrawClass`, for views only."""


PIPELINE = [dict(type='DrawClass'), dict(type='PackInputs')]


def classifier(kind: str = 'vit', **changes: Any) -> dict:
    model = dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3, num_classes=3),
        backbone=dict(BACKBONES[kind]),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=16, loss=dict(type='CrossEntropyLoss')),
    )
    if kind in POOLED:
        model['neck'] = dict(type='GlobalAveragePooling')
    return {**model, **changes}


def classes_config(work_dir: Path, kind: str = 'vit', **changes: Any) -> Config:
    """Return the config of a run that selects by SupCon and trains two iterations; ``changes`` replace whole keys."""
    data = dict(type='TinyClasses', pipeline=PIPELINE)
    sampler = dict(type='DefaultSampler', shuffle=True)
    return tiny_config(
        work_dir,
        **{
            'max_iters': 2,
            'default_scope': 'mmpretrain',
            'model': classifier(kind),
            'train_dataloader': dict(
                batch_size=4, num_workers=0, sampler=sampler, dataset=data, collate_fn=dict(type='default_collate')
            ),
            'custom_hooks': [dict(type='mmgps.GPSHook', k=1, loss=dict(type='mmgps.SupConLoss'))],
            **changes,
        },
    )
