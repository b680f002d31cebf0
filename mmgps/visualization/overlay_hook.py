"""Hook that writes overlays of truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmgps.registry import HOOKS
from mmgps.utils.atomic_file import skipped_if_unwritable

from .overlay import Colour
from .sample_view import View, named_classes, view_sample, write_sheet, write_view

MAX_ON_SHEET = 40


@HOOKS.register_module()
class OverlayHook(Hook):
    """Write overlays of truth and prediction for a few images, evenly spaced over the set.

    After training they show the last validation, which belongs to the reported model; after testing they show the test.
    ``<work_dir>/<timestamp>/overlays/val`` or ``.../test`` receives one PNG per image, and ``contact_sheet.png`` with
    all of them and their Dice. It works with any mmseg data set: two classes appear as outlines in one picture, more
    classes in their colours, with the truth left of the prediction. Only the first rank keeps and writes images, from
    its own share of the set.

    Args:
        num_images: Number of images to draw; None draws all. The contact sheet shows at most 40 of them.
        columns: Images in a row of the contact sheet.
        out_dir: Folder for the pictures; a relative one lies in the run's log folder ``<work_dir>/<timestamp>``.

    Raises:
        ValueError: If ``num_images`` or ``columns`` is below 1.
    """

    priority = 'LOW'

    def __init__(self, num_images: int | None = 8, columns: int = 4, out_dir: str = 'overlays') -> None:
        if (num_images is not None and num_images < 1) or columns < 1:
            raise ValueError(
                f'{num_images=} and {columns=} must be 1 or more; to draw nothing, leave the hook out of the config'
            )
        self.num_images, self.columns, self.out_dir = num_images, columns, out_dir
        self._views: dict[str, list[View]] = {}
        self._wanted: set[int] = set()
        self._on_sheet: set[int] = set()
        self._seen = self._drawn = 0
        self._classes: list[tuple[str, Colour]] = []

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Forget the previous validation or test; mmengine calls this before the epochs of all loops."""
        if mode == 'train':
            return
        loader: DataLoader = runner.val_dataloader if mode == 'val' else runner.test_dataloader
        size = len(loader.sampler)  # type: ignore[arg-type]  # every sampler of mmengine has a length
        self._classes = named_classes(getattr(loader.dataset, 'metainfo', None) or {})
        self._views[mode] = []
        self._wanted = evenly_spaced(size, size if self.num_images is None else self.num_images)
        self._on_sheet = evenly_spaced(len(self._wanted), MAX_ON_SHEET)
        self._seen = self._drawn = 0

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        """Draw the chosen images of the batch; mmengine calls this after the iterations of all loops."""
        if mode == 'train':
            return
        outputs = outputs or ()
        first, self._seen = self._seen, self._seen + len(outputs)
        if not is_main_process():
            return
        inputs = data_batch['inputs']
        if isinstance(inputs[0], Sequence):  # views of a test-time augmentation; the first is the plain one
            inputs = inputs[0]
        for index, sample in enumerate(outputs):
            if first + index not in self._wanted:
                continue
            view = view_sample(sample, inputs[index], self._classes)
            if self._drawn in self._on_sheet:
                self._views[mode].append(view)
            self._drawn += 1
            with skipped_if_unwritable(runner.logger.warning):
                write_view(self._folder(runner, mode), self._drawn, view)

    def after_run(self, runner: Runner) -> None:
        """Write the contact sheet and log its path."""
        for phase, views in self._views.items():
            if views:
                with skipped_if_unwritable(runner.logger.warning):
                    sheet = write_sheet(self._folder(runner, phase), views, self.columns)
                    runner.logger.info(f'overlays of {self._drawn} {phase} images: {sheet}')
        self._views.clear()

    def _folder(self, runner: Runner, phase: str) -> Path:
        return Path(runner.log_dir) / self.out_dir / phase


def evenly_spaced(size: int, count: int) -> set[int]:
    """Return up to ``count`` of the positions ``0..size-1``, including the first and the last."""
    return {int(position) for position in np.linspace(0, size - 1, min(count, size)).round()}
