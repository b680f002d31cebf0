"""VTAB-1k: 19 tasks of 1000 images each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmgps.datasets.classes.labelled import LabelledImages
from mmgps.registry import DATASETS
from mmgps.vtab_tasks import get_task


@DATASETS.register_module()
class VTAB(LabelledImages):
    """One task of VTAB-1k, in the layout in which the field passes it on (NOAH, https://github.com/ZhangYuanhan-AI/NOAH).

    ::

        vtab-1k/
          cifar/
            images/...
            train800.txt  val200.txt  train800val200.txt  test.txt    path from the folder of the task, and class from 0

    Args:
        data_root: Folder of all tasks.
        task: Name of a task, in ``mmgps.vtab_tasks.TASKS``.
        split: ``train800val200`` to train on before a test; ``train800`` and ``val200`` to choose by.
        **kwargs: As for mmengine's ``BaseDataset``.

    Raises:
        ValueError: For another task or split.
        ClassDataError: If a list is missing, or a line is none of a path and a class of the task.
    """

    SPLITS = ('train800', 'val200', 'train800val200', 'test')
    MADE_BY = 'python tools/prepare_vtab.py --out {root}'

    def __init__(self, data_root: str, task: str, split: str = 'train800val200', **kwargs: Any) -> None:
        self.task = get_task(task)
        super().__init__(data_root, split, **kwargs)

    def labelled(self) -> list[tuple[Path, int]]:
        name = f'{self.task.name}/{self.split}.txt'
        return [self._labelled(line, name) for line in self.lines(name)]

    def _labelled(self, line: str, name: str) -> tuple[Path, int]:
        path, _, label = line.strip().rpartition(' ')
        if not path or not label.isdecimal() or int(label) >= self.task.classes:
            raise self.fault(
                f'{self.root / name} has the line {line!r}, expected a path and a class from 0 to '
                f'{self.task.classes - 1}'
            )
        return self.root / self.task.name / path, int(label)
