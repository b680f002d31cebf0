"""Colonoscopy images with polyp masks: the data set for mmseg, and the config input that provides its images."""

from __future__ import annotations

import os.path as osp
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset

from mmgps.engine import InputMissingError, rooted_datasets
from mmgps.registry import DATASETS, INPUTS
from mmgps.utils.lock import one_at_a_time

from .prepare import PolypSource, PrepareError, get_source, prepare
from .prepare.errors import listing

SUFFIXES = ('.jpg', '.png')
DATASET = 'mmgps.PolypDataset'


class PolypDataError(FileNotFoundError):
    """Folders of a polyp set are missing, empty or contradictory, or hold raw masks."""


@DATASETS.register_module()
class PolypDataset(BaseSegDataset):
    """Binary polyp segmentation: ``background`` is 0 and ``polyp`` is 1.

    ``tools/prepare_polyp.py`` writes the layout, which is mmseg's: ``images/{train,val}/ID.jpg`` beside
    ``annotations/{train,val}/ID.png``, ``(H, W)`` uint8 masks of 0 and 1. An ``ann_file`` lists ids, as in mmseg;
    without it the set has all images of the folder, in the order of their names.

    Args:
        img_suffix: Suffix of the images; ``None`` takes ``.jpg`` or ``.png``, whichever the folder holds.
        seg_map_suffix: Suffix of the masks.
        reduce_zero_label: Must stay ``False``: 0 is a class.
        **kwargs: As for mmseg's ``BaseSegDataset``.

    Raises:
        PolypDataError: When the images are listed, if a folder is missing or empty, an image has no mask, or the first
            mask holds values other than 0, 1 and ``ignore_index``. Other masks are checked when they are first loaded.
    """

    METAINFO = dict(classes=('background', 'polyp'), palette=[[0, 0, 0], [0, 220, 120]])

    def __init__(
        self, img_suffix: str | None = None, seg_map_suffix: str = '.png', reduce_zero_label: bool = False, **kwargs
    ) -> None:
        self.img_suffix: str | None
        self._checked: set[str] = set()
        super().__init__(
            img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, reduce_zero_label=reduce_zero_label, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """List the images and masks as mmseg does, and check that they exist."""
        images = self._files_in(self.data_prefix.get('img_path', ''))
        if self.img_suffix is None:
            self.img_suffix = self._found_suffix(images)
        if self.ann_file and not fileio.exists(self.ann_file, backend_args=self.backend_args):
            raise PolypDataError(f'the list {self.ann_file} does not exist. {self._expected()}')
        data_list = super().load_data_list()
        if not data_list:
            raise PolypDataError(f'no image ends in {self.img_suffix!r}. {self._expected()}')
        self._check_all_there(data_list, 'img_path', images)
        if self.data_prefix.get('seg_map_path') is not None:
            self._check_all_there(data_list, 'seg_map_path', self._files_in(self.data_prefix['seg_map_path']))
            self._check_values(data_list[0]['seg_map_path'])
        return data_list

    def prepare_data(self, idx: int) -> Any:
        """Return sample ``idx`` from the pipeline. Each process first checks the values of each mask once."""
        path = self.get_data_info(idx).get('seg_map_path')
        if path is not None and path not in self._checked:
            self._check_values(path)
        return super().prepare_data(idx)

    def _files_in(self, folder: str) -> set[str]:
        """Return the paths of all files under ``folder``."""
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise PolypDataError(f'the folder {osp.abspath(folder)} does not exist. {self._expected()}')
        found = fileio.list_dir_or_file(folder, list_dir=False, recursive=True, backend_args=self.backend_args)
        names = {osp.join(folder, name) for name in found}
        if not names:
            raise PolypDataError(f'the folder {osp.abspath(folder)} is empty. {self._expected()}')
        return names

    def _found_suffix(self, images: set[str]) -> str:
        found = [suffix for suffix in SUFFIXES if any(name.endswith(suffix) for name in images)]
        if len(found) != 1:
            folder = osp.abspath(self.data_prefix.get('img_path', ''))
            kinds = ' and '.join(found) or 'neither .jpg nor .png'
            raise PolypDataError(
                f'the folder {folder} holds {kinds} images: name one with img_suffix. {self._expected()}'
            )
        return found[0]

    def _check_all_there(self, data_list: list[dict], key: str, present: set[str]) -> None:
        missing = [info[key] for info in data_list if info[key] not in present]
        if missing:
            raise PolypDataError(
                f'{len(missing)} of {len(data_list)} files are missing: {listing(missing)}. {self._expected()}'
            )

    def _check_values(self, path: str) -> None:
        # With masks of 0 and 255 mmseg would silently ignore every polyp pixel.
        data = fileio.get(path, backend_args=self.backend_args)
        values = set(np.unique(mmcv.imfrombytes(data, flag='unchanged', backend='pillow')).tolist())
        if values - {0, 1, self.ignore_index} or (self.ignore_index in values and 1 not in values):
            raise PolypDataError(f'the mask {path} holds the values {sorted(values)[:8]}. {self._expected()}')
        self._checked.add(path)

    def _expected(self) -> str:
        root = self.data_root or 'DATA_ROOT'
        there = f'--out {root}'
        if fileio.isdir(osp.join(root, 'masks'), backend_args=self.backend_args):  # the published folders
            there = f'--source {root} --out data/kvasir_seg, then --data-root data/kvasir_seg'
        return (
            f'Expected images ({", ".join(SUFFIXES)}) and, under the same names, .png masks of 0 (background) and 1 '
            f'(polyp): images/{{train,val}} and annotations/{{train,val}} in {root}. To make it: '
            f'python tools/prepare_polyp.py kvasir-seg {there} (--help lists the other sets)'
        )


@INPUTS.register_module()
class PolypImages:
    """Download and prepare a published set in every ``data_root`` that is missing or empty.

    Other folders are left alone, because :class:`PolypDataset` checks the files that it reads.

    Args:
        name: Name of a set in ``mmgps.datasets.prepare.SOURCES``.

    Raises:
        ValueError: If no set has this name.
    """

    def __init__(self, name: str) -> None:
        self.source = get_source(name)

    def provide(self, cfg: Config) -> None:
        """Prepare the missing folders."""
        roots = {Path(data['data_root']) for data in rooted_datasets(cfg) if data.get('type') == DATASET}
        for root in sorted(roots):
            if _is_empty(root):
                _make(self.source, root)


def _is_empty(root: Path) -> bool:
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def _make(source: PolypSource, root: Path) -> None:
    try:
        with one_at_a_time(root):
            if _is_empty(root):  # still: another process may have made it meanwhile
                prepare(source.name, root)
    except PrepareError as error:
        zipped = root.parent / (source.url or f'{source.name}.zip').rpartition('/')[2]
        raise InputMissingError(
            f'The images of {source.title} are missing from {root}: {error.__cause__ or error}. They come from '
            f'{source.where}; put the zip at {zipped} and run this again, or give the folder of a prepared set with '
            '--data-root'
        ) from error
