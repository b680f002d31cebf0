"""VTAB-1k as a set of files."""

from __future__ import annotations

from collections.abc import Sequence

from mmgps.datasets.classes import VTAB
from mmgps.datasets.prepare_classes.sets import ClassSet, SourceFile, Split
from mmgps.vtab_tasks import TASKS, get_task

TRAIN = {'train800': 800, 'val200': 200, 'train800val200': 1000}


def vtab_set(names: Sequence[str] = ()) -> ClassSet:
    """VTAB-1k, or those of its tasks that are named.

    Raises:
        ValueError: For a task that there is not.
    """
    tasks = [get_task(name) for name in names] or TASKS
    splits = [
        Split(
            f'{task.name}/{split}',
            {**TRAIN, 'test': task.test}[split],
            dict(type='mmgps.VTAB', task=task.name, split=split),
        )
        for task in tasks
        for split in VTAB.SPLITS
    ]
    return ClassSet(
        name='vtab-1k',
        title='VTAB-1k',
        holds=frozenset(task.name for task in tasks),
        parts=(SourceFile('vtab-1k.zip', root='vtab-1k'),),
        splits=tuple(splits),
        where='the links in https://github.com/ZhangYuanhan-AI/NOAH and https://github.com/luogen1996/RepAdapter, '
        'whose vtab-1k.zip holds a folder with images and lists for each task',
        cite='Zhai et al., A Large-scale Study of Representation Learning with the Visual Task Adaptation Benchmark, '
        'arXiv 1910.04867, and the publication of each task',
    )
