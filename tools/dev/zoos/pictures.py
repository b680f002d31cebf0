"""A few drawn pictures on disk, and the data sets of mmseg, mmpretrain and mmdet that read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

COUNT = 4
SIDE = 160
#: Folders of label maps; the classes start at one if zero means "ignore".
LABELS = {False: 'labels', True: 'labels_from_one'}
#: Types of sets with boxes, besides those with COCO in their name.
BOXES = (
    'CityscapesDataset',
    'CrowdHumanDataset',
    'DeepFashionDataset',
    'LVISV05Dataset',
    'LVISV1Dataset',
    'Objects365V1Dataset',
    'Objects365V2Dataset',
    'OpenImagesChallengeDataset',
    'OpenImagesDataset',
    'V3DetDataset',
    'VOCDataset',
    'WIDERFaceDataset',
)


def draw_pictures(folder: Path) -> None:
    """Draw pictures of a bright square, their label maps, lists of classes and boxes in the format of COCO."""
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
    """Return a data set that replaces ``replaced`` and keeps its pipeline."""
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
    """Return a set of pictures of two classes; a model for several labels per picture gets lists of classes."""
    common = dict(data_root=folder, data_prefix='images', pipeline=_loading(cfg, pipeline))
    if str((cfg.model.get('head') or {}).get('type')).startswith(('MultiLabel', 'CSRA')):
        return dict(type='MultiLabelDataset', ann_file='several.json', **common)
    return dict(type='CustomDataset', ann_file='single.txt', metainfo=dict(classes=('a', 'b')), **common)


def _loading(cfg: Config, pipeline: list[Any]) -> list[Any]:
    """Add loading and resizing to the pipeline of a set such as CIFAR, which holds its pictures in memory."""
    if any(str(step.get('type')).startswith('Load') for step in pipeline):
        return pipeline
    preprocessor = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}
    grey = len(preprocessor.get('mean', [0] * 3)) == 1
    load = dict(type='LoadImageFromFile', color_type='grayscale' if grey else 'color')
    return [load, dict(type='Resize', scale=(32, 32)), *pipeline]


def coco(maps: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the annotations of pictures with one bright square each: its box and its outline.

    Args:
        maps: Label map ``[height, width]`` of each picture.
    """
    return dict(
        categories=[dict(id=1 + at, name=name) for at, name in enumerate('ab')],
        images=[
            dict(id=at, file_name=f'{at}.png', height=len(each), width=len(each[0])) for at, each in enumerate(maps)
        ],
        annotations=[_square(at, each) for at, each in enumerate(maps)],
    )


def _square(at: int, labels: np.ndarray) -> dict[str, Any]:
    y, x = (axis.tolist() for axis in np.nonzero(labels))
    left, top, right, bottom = min(x), min(y), max(x) + 1, max(y) + 1
    return dict(
        id=1 + at,
        image_id=at,
        category_id=1 + at % 2,
        bbox=[left, top, right - left, bottom - top],
        area=(right - left) * (bottom - top),
        segmentation=[[left, top, right, top, right, bottom, left, bottom]],
        iscrowd=0,
    )


def detection(configured: Any, folder: str, classes: int) -> dict[str, Any]:
    """Replace every set of boxes within ``configured`` by the drawn one, and keep its wrappers and pipelines.

    Other kinds of sets stay, such as videos, person re-identification and panoptic maps; they do not train here.

    Args:
        configured: Config of a data set.
        folder: Folder of the drawn pictures.
        classes: Number of classes of the model; the boxes have the first two.
    """
    names = ('a', 'b', *(f'class {at}' for at in range(2, classes)))[:classes]
    for inner in list(_sets(configured)):
        if ('Coco' in inner['type'] and 'Panoptic' not in inner['type']) or inner['type'] in BOXES:
            pipeline = inner['pipeline']
            inner.clear()
            inner.update(
                type='CocoDataset',
                data_root=folder,
                ann_file='coco.json',
                data_prefix=dict(img='images/', seg='labels/'),
                metainfo=dict(classes=names),
                pipeline=pipeline,
            )
    return configured


def _sets(part: Any) -> Iterator[Any]:
    """Yield the data sets inside wrappers such as ``RepeatDataset``, and let each wrapper pass over them once."""
    if 'times' in part:
        part['times'] = 1
    inner = part['datasets'] if 'datasets' in part else [part['dataset']] if 'dataset' in part else []
    for each in inner:
        yield from _sets(each)
    if not inner:
        yield part
