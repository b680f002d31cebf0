"""Sets of fine-grained classes: NABirds (Van Horn et al., CVPR 2015) and Stanford Dogs (Khosla et al., CVPRW 2011)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmgps.registry import DATASETS

from .labelled import LabelledImages


@DATASETS.register_module()
class NABirds(LabelledImages):
    """555 visual categories of North American birds: 23,929 images to train on and 24,633 to test on.

    The layout is the published one::

        nabirds/
          images/0817/ID.jpg
          images.txt              ID path, one image a line
          image_class_labels.txt  ID category
          train_test_split.txt    ID 1 to train on, ID 0 to test on
          classes.txt             category name, also of those above the 555 in the hierarchy

    The categories of the images are numbered from 0 in ascending order.
    """

    SPLITS = ('train', 'test')
    MADE_BY = 'python tools/prepare_fgvc.py nabirds --out {root}'

    def labelled(self) -> list[tuple[Path, int]]:
        paths, labels, uses = map(self._by_id, ('images.txt', 'image_class_labels.txt', 'train_test_split.txt'))
        if not paths.keys() == labels.keys() == uses.keys():
            counts = ', '.join(str(len(found)) for found in (paths, labels, uses))
            raise self.fault(f'the three lists of {self.root} hold other images, {counts} of them')
        numbers = {category: number for number, category in enumerate(sorted(set(labels.values()), key=int))}
        self._metainfo.setdefault('classes', self._names(numbers))
        wanted = '1' if self.split == 'train' else '0'
        images = self.root / 'images'
        return [(images / path, numbers[labels[key]]) for key, path in paths.items() if uses[key] == wanted]

    def _by_id(self, name: str) -> dict[str, str]:
        return {key: value.strip() for key, _, value in (line.partition(' ') for line in self.lines(name))}

    def _names(self, numbers: dict[str, int]) -> tuple[str, ...]:
        names = self._by_id('classes.txt')
        missing = [category for category in numbers if category not in names]
        if missing:
            raise self.fault(f'{self.root / "classes.txt"} names no category {missing[0]}')
        return tuple(names[category] for category in numbers)


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
    """Iterate over the items of nested lists, which is how cell arrays of MATLAB are read."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)
    else:
        yield values
