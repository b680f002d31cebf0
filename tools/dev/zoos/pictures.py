"""A few drawn pictures on disk, and the data sets of mmseg and mmpretrain that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from .boxes import coco

COUNT = 4
SIDE = 160
#: Label maps; where zero is no class but "ignore", the classes start at one.
LABELS = {False: 'labels', True: 'labels_from_one'}


def draw_pictures(folder: Path) -> None:
    """Pictures of a bright square in ``images``; label maps, lists of classes and boxes as COCO has them beside it."""
    for name in ('images', *LABELS.values()):
        (folder / name).mkdir(parents=True, exist_ok=True)
    found = []
    for at in range(COUNT):
        image, labels = _picture(at)
        found.append(labels)
        cv2.imwrite(str(folder / f'images/{at}.png'), image)
        for from_one, name in LABELS.items():
            cv2.imwrite(str(folder / name / f'{at}.png'), labels + from_one)
    single = '\n'.join(f'{at}.png {at % 2}' for at in range(COUNT))
    (folder / 'single.txt').write_text(single)
    several = [dict(img_path=f'{at}.png', gt_label=[at % 2]) for at in range(COUNT)]
    (folder / 'several.json').write_text(json.dumps(dict(metainfo=dict(classes=['a', 'b']), data_list=several)))
    (folder / 'coco.json').write_text(json.dumps(coco(found)))


def _picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    y, x, side = rng.integers(10, 70, 3)
    labels[y : y + side, x : x + side] = 1
    image[labels == 1] += 100
    return image, labels


def dataset(cfg: Config, stack: str, folder: str, replaced: Any) -> dict[str, Any]:
    """The data set that takes the place of ``replaced`` and keeps its pipeline."""
    if stack == 'mmseg':
        return _segmentation(folder, replaced['pipeline'])
    return _classification(cfg, folder, replaced['pipeline'])


def _segmentation(folder: str, pipeline: list[Any]) -> dict[str, Any]:
    from_one = any(step.get('reduce_zero_label') for step in pipeline)
    return dict(
        type='BaseSegDataset',
        data_root=folder,
        data_prefix=dict(img_path='images', seg_map_path=LABELS[from_one]),
        img_suffix='.png',
        seg_map_suffix='.png',
        reduce_zero_label=from_one,
        metainfo=dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 255, 255]]),
        pipeline=pipeline,
    )


def _classification(cfg: Config, folder: str, pipeline: list[Any]) -> dict[str, Any]:
    """A set of pictures of two classes; where each has a list of classes, one of several labels."""
    common = dict(data_root=folder, data_prefix='images', pipeline=_loading(cfg, pipeline))
    if str((cfg.model.get('head') or {}).get('type')).startswith(('MultiLabel', 'CSRA')):
        return dict(type='MultiLabelDataset', ann_file='several.json', **common)
    return dict(type='CustomDataset', ann_file='single.txt', metainfo=dict(classes=('a', 'b')), **common)


def _loading(cfg: Config, pipeline: list[Any]) -> list[Any]:
    """``pipeline``, with the loading and the size that a set such as CIFAR, which holds its pictures, goes without."""
    if any(str(step.get('type')).startswith('Load') for step in pipeline):
        return pipeline
    preprocessor = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}
    grey = len(preprocessor.get('mean', [0] * 3)) == 1
    load = dict(type='LoadImageFromFile', color_type='grayscale' if grey else 'color')
    return [load, dict(type='Resize', scale=(32, 32)), *pipeline]
