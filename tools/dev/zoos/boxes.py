"""The drawn pictures as a data set of mmdet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def coco(maps: Sequence[np.ndarray]) -> dict[str, Any]:
    """Annotations of pictures with one bright square each: its box and its outline.

    Args:
        maps: Label maps, ``[height, width]``, one of each picture.
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
    """``configured`` with its wrappers and pipelines, every set of boxes within it replaced by the drawn one.

    Sets of other kinds, such as videos, persons to tell apart and panoptic maps, stay: their configs do not train here.

    Args:
        classes: As many as the model has; boxes are of the first two.
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


#: Types of sets with boxes, beside those that have COCO in their name.
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


def _sets(part: Any) -> Iterator[Any]:
    """The data sets within wrappers such as ``RepeatDataset``, each of which shall pass once over them."""
    if 'times' in part:
        part['times'] = 1
    inner = part['datasets'] if 'datasets' in part else [part['dataset']] if 'dataset' in part else []
    for each in inner:
        yield from _sets(each)
    if not inner:
        yield part
