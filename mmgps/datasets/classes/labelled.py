"""Base of the classification sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset


class ClassDataError(FileNotFoundError):
    """The files of a set are missing or do not fit together."""


class LabelledImages(BaseDataset):
    """Images with one class each; samples have ``img_path`` and ``gt_label``, as in mmpretrain.

    It needs only mmengine; the transforms of its pipeline come from the scope of the config.

    Args:
        data_root: Folder of the set.
        split: One of :attr:`SPLITS`.
        **kwargs: As for mmengine's ``BaseDataset``.

    Raises:
        ValueError: If the split is unknown; names the known ones.
        ClassDataError: When the images are listed, if a file is missing or does not fit; says how to make the set.
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
        """Paths of the images of the split with their classes, counted from 0."""

    def get_cat_ids(self, idx: int) -> list[int]:
        """Class of image ``idx`` as a list, for the wrappers of mmpretrain."""
        return [int(self.get_data_info(idx)['gt_label'])]

    @property
    def root(self) -> Path:
        return Path(self.data_root)

    def lines(self, name: str) -> list[str]:
        """Non-empty lines of a text file of the set.

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
