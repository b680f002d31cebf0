"""What is needed to draw one sample, taken from mmseg's output and kept small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.fileio import exists, get
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor

from mmgps.evaluation.foreground import Mask, dice_iou, split_truth, two_class_mask

from .contact_sheet import contact_sheet, write_png
from .overlay import PREDICTION, TRUTH, Image, draw_overlay

#: Smaller frames are enlarged to this shorter side before drawing, so that the lines stay thin beside the polyp.
SMALLEST = 320


@dataclass(frozen=True)
class SampleView:
    """One image with its labels, all ``(H, W)``. Without annotation ``target`` and ``valid`` are None."""

    name: str
    image: Image
    prediction: Mask
    target: Mask | None = None
    valid: Mask | None = None

    @property
    def caption(self) -> str:
        """The foreground Dice in percent, where the truth is known, and the name."""
        if self.target is None:
            return self.name
        return f'Dice {100 * dice_iou(self.prediction, self.target, self.valid)[0]:.1f}  {self.name}'

    def draw(self) -> Image:
        """The overlay, see :func:`~mmgps.visualization.overlay.draw_overlay`."""
        scale = max(1.0, SMALLEST / min(self.image.shape[:2]))
        target = None if self.target is None else _enlarged(self.target, scale)
        return draw_overlay(_enlarged(self.image, scale), target, _enlarged(self.prediction, scale))


def view_sample(sample: BaseDataElement, network_input: Tensor) -> SampleView:
    """Take the view from a prediction of mmseg, at the original size.

    The image is read from ``img_path``. Sets that draw their frames have no such file; there the network's input is
    brought back to the original size, in the BGR order in which mmcv loads images.

    Args:
        sample: A ``SegDataSample`` with ``pred_sem_seg`` and, where known, ``gt_sem_seg``.
        network_input: ``(3, h, w)`` of 0..255, before normalisation.

    Raises:
        ValueError: If the labels are not of two classes, with the name of the image.
    """
    path = str(sample.get('img_path', 'image'))
    try:
        prediction = two_class_mask(_plane(sample.pred_sem_seg.data), 'the prediction')
        target, valid = split_truth(_plane(sample.gt_sem_seg.data)) if 'gt_sem_seg' in sample else (None, None)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    if exists(path):
        image = mmcv.imfrombytes(get(path), channel_order='rgb')
    else:
        image = _from_input(network_input, prediction.shape)
    return SampleView(Path(path).stem, image, prediction, target, valid)


def write_view(folder: Path, number: int, view: SampleView) -> None:
    """Write the overlay of one image into ``folder``, under its number and name."""
    write_png(folder / f'{number:02d}_{view.name}.png', view.draw())


def write_sheet(folder: Path, views: Sequence[SampleView], columns: int) -> Path:
    """Write all overlays on ``contact_sheet.png``, whose path returns."""
    legend = [('prediction', PREDICTION)]
    if any(view.target is not None for view in views):
        legend = [('truth, filled where missed', TRUTH), ('prediction, filled where wrong', PREDICTION)]
    sheet = folder / 'contact_sheet.png'
    write_png(sheet, contact_sheet([view.draw() for view in views], [view.caption for view in views], columns, legend))
    return sheet


def _plane(data: Tensor) -> NDArray[Any]:
    return data.reshape(data.shape[-2:]).cpu().numpy()


def _from_input(network_input: Tensor, shape: tuple[int, ...]) -> Image:
    bgr = network_input.cpu().numpy().transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    return np.asarray(cv2.resize(rgb, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _enlarged(array: NDArray[Any], scale: float) -> NDArray[Any]:
    if scale == 1:
        return array
    size = (round(array.shape[1] * scale), round(array.shape[0] * scale))
    if array.dtype == bool:
        return cv2.resize(array.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    return cv2.resize(array, size, interpolation=cv2.INTER_CUBIC)
