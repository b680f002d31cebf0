"""Stanford Dogs (Khosla et al., FGVC workshop at CVPR 2011)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmgps.datasets.classes.labelled import LabelledImages
from mmgps.registry import DATASETS


@DATASETS.register_module()
class StanfordDogs(LabelledImages):
    """120 breeds: 12,000 images to train on and 8,580 to test on.

    The layout is the published one, of ``images.tar`` and ``lists.tar``::

        stanford_dogs/
          Images/n02085620-Chihuahua/n02085620_10074.jpg
          train_list.mat  test_list.mat   file_list, and labels from 1
    """

    SPLITS = ('train', 'test')
    MADE_BY = 'python tools/prepare_fgvc.py stanford-dogs --out {root}'

    def labelled(self) -> list[tuple[Path, int]]:
        path = self.root / f'{self.split}_list.mat'
        if not path.is_file():
            raise self.fault(f'{path} does not exist')
        found = _read_mat(path)
        names = [str(name) for name in _flat(found.get('file_list', ()))]
        labels = [int(label) - 1 for label in _flat(found.get('labels', ()))]
        if len(names) != len(labels) or not names:
            raise self.fault(f'{path} lists {len(names)} files and {len(labels)} labels')
        return [(self.root / 'Images' / name, label) for name, label in zip(names, labels, strict=True)]


def _read_mat(path: Path) -> dict[str, Any]:
    try:
        import mat4py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} is a MATLAB file, and mat4py, which mmpretrain brings, is not installed: pip install mat4py'
        ) from error
    return mat4py.loadmat(str(path))


def _flat(values: Any) -> Iterator[Any]:
    """The items of nested lists, as cell arrays of MATLAB are read."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)
    else:
        yield values
