"""What the sets of images with one class each share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset


class ClassDataError(FileNotFoundError):
    """The files of a set are not there or do not fit together."""


class LabelledImages(BaseDataset):
    """Images with one class each, as mmpretrain's sets: ``img_path`` and ``gt_label`` of each.

    It needs mmengine alone; the transforms of its pipeline are those of the config's scope.

    Args:
        data_root: Folder of the set.
        split: One of :attr:`SPLITS`.
        **kwargs: As for mmengine's ``BaseDataset``.

    Raises:
        ValueError: For another split, names those there are.
        ClassDataError: When the list of images is made, if a file is missing or does not fit; says how to make the set.
    """

    SPLITS: Sequence[str]
    MADE_BY: str
    """The command that makes the set in ``{root}``."""

    def __init__(self, data_root: str, split: str, **kwargs: Any) -> None:
        if split not in self.SPLITS:
            raise ValueError(f'{type(self).__name__} has the splits {", ".join(self.SPLITS)}; got {split!r}')
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """A mapping for each image of the split, in the order of the published lists."""
        return [dict(img_path=str(path), gt_label=label) for path, label in self.labelled()]

    @abstractmethod
    def labelled(self) -> list[tuple[Path, int]]:
        """Image and class, counted from 0, of the split."""

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of image ``idx``, in a list, as wrappers of mmpretrain ask for it."""
        return [int(self.get_data_info(idx)['gt_label'])]

    @property
    def root(self) -> Path:
        return Path(self.data_root)

    def lines(self, name: str) -> list[str]:
        """The lines of a text file of the set that are not empty.

        Raises:
            ClassDataError: If there is no such file.
        """
        path = self.root / name
        if not path.is_file():
            raise self.fault(f'{path} does not exist')
        return [line for line in path.read_text().splitlines() if line.strip()]

    def fault(self, what: str) -> ClassDataError:
        """An error that says ``what`` is wrong and how to make the set."""
        return ClassDataError(f'{what}. To make the set: {self.MADE_BY.format(root=self.root)}')
