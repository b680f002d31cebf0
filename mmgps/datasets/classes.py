"""Classification sets that mmpretrain lacks: NABirds, Stanford Dogs and VTAB-1k."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmgps.registry import DATASETS
from mmgps.vtab_tasks import get_task


class ClassDataError(FileNotFoundError):
    """Files of a set are missing or contradict each other."""


class LabelledImages(BaseDataset):
    """Images with one class each; samples have ``img_path`` and ``gt_label``, as in mmpretrain.

    They need only mmengine; the transforms of their pipelines come from the scope of the config.

    Args:
        data_root: Folder of the set.
        split: One of :attr:`SPLITS`.
        **kwargs: As for mmengine's ``BaseDataset``.

    Raises:
        ValueError: If the split is unknown; names the known ones.
        ClassDataError: When the images are listed, if a file is missing or wrong; says how to make the set.
    """

    SPLITS: Sequence[str]
    MADE_BY: str
    """Command that makes the set in ``{root}``."""

    def __init__(self, data_root: str, split: str, **kwargs: Any) -> None:
        if split not in self.SPLITS:
            raise ValueError(f'{type(self).__name__} has the splits {", ".join(self.SPLITS)}; got {split!r}')
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images of the split in the order of the published lists."""
        return [dict(img_path=str(path), gt_label=label) for path, label in self.labelled()]

    @abstractmethod
    def labelled(self) -> list[tuple[Path, int]]:
        """Return the paths of the split's images with their classes, counted from 0."""

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the class of image ``idx`` as a list, for the wrappers of mmpretrain."""
        return [int(self.get_data_info(idx)['gt_label'])]

    @property
    def root(self) -> Path:
        return Path(self.data_root)

    def lines(self, name: str) -> list[str]:
        """Return the non-empty lines of a text file of the set.

        Raises:
            ClassDataError: If the file does not exist.
        """
        path = self.root / name
        if not path.is_file():
            raise self.fault(f'{path} does not exist')
        return [line for line in path.read_text().splitlines() if line.strip()]

    def fault(self, what: str) -> ClassDataError:
        """Make an error that says ``what`` is wrong and how to make the set."""
        return ClassDataError(f'{what}. To make the set: {self.MADE_BY.format(root=self.root)}')


@DATASETS.register_module()
class NABirds(LabelledImages):
    """555 visual categories of North American birds (Van Horn et al., CVPR 2015): 23,929 training, 24,633 test images.

    The published layout::

        nabirds/
          images/0817/ID.jpg
          images.txt              ID path, one image per line
          image_class_labels.txt  ID category
          train_test_split.txt    ID 1 for training, ID 0 for testing
          classes.txt             category name, including the parents of the 555

    The categories of the images are numbered from 0 in ascending order.
    """

    SPLITS = ('train', 'test')
    MADE_BY = 'python tools/prepare_fgvc.py nabirds --out {root}'

    def labelled(self) -> list[tuple[Path, int]]:
        paths, labels, uses = map(self._by_id, ('images.txt', 'image_class_labels.txt', 'train_test_split.txt'))
        if not paths.keys() == labels.keys() == uses.keys():
            counts = ', '.join(str(len(found)) for found in (paths, labels, uses))
            raise self.fault(f'the three lists of {self.root} name different images, {counts} of them')
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
            raise self.fault(f'{self.root / "classes.txt"} lacks the category {missing[0]}')
        return tuple(names[category] for category in numbers)


@DATASETS.register_module()
class StanfordDogs(LabelledImages):
    """120 breeds (Khosla et al., CVPRW 2011): 12,000 training and 8,580 test images.

    The published layout, from ``images.tar`` and ``lists.tar``::

        stanford_dogs/
          Images/n02085620-Chihuahua/n02085620_10074.jpg
          train_list.mat  test_list.mat   file_list, and labels counted from 1
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
    """Iterate over the items of nested lists; mat4py reads MATLAB's cell arrays as such lists."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)
    else:
        yield values


@DATASETS.register_module()
class VTAB(LabelledImages):
    """One task of VTAB-1k, in the layout of NOAH (https://github.com/ZhangYuanhan-AI/NOAH), which others share.

    ::

        vtab-1k/
          cifar/
            images/...
            train800.txt  val200.txt  train800val200.txt  test.txt    path from the task's folder, class from 0

    Args:
        data_root: Folder of all tasks.
        task: Name of a task in ``mmgps.vtab_tasks.TASKS``.
        split: ``train800val200`` for the final training; ``train800`` and ``val200`` for choosing settings.
        **kwargs: As for mmengine's ``BaseDataset``.

    Raises:
        ValueError: If the task or the split is unknown.
        ClassDataError: If a list is missing, or a line is not a path and a class of the task.
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
