"""Views of samples: the few arrays of mmseg's output that a drawing needs, and the drawing itself."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
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

from mmgps.evaluation.foreground import IGNORE_INDEX, Mask, dice_iou, split_truth, two_class_mask

from .contact_sheet import GAP, PAPER, contact_sheet, write_png
from .overlay import PREDICTION, TRUTH, Colour, Image, draw_classes, draw_overlay

#: Smaller frames are enlarged to this shorter side before drawing, so that lines remain thin beside the polyp.
SMALLEST = 320


@dataclass(frozen=True)
class SampleView:
    """One image with its labels, all ``(H, W)``; ``target`` and ``valid`` are None without annotation."""

    name: str
    image: Image
    prediction: Mask
    target: Mask | None = None
    valid: Mask | None = None

    @property
    def caption(self) -> str:
        """Name of the image, after the foreground Dice in percent if the truth is known."""
        if self.target is None:
            return self.name
        return f'Dice {100 * dice_iou(self.prediction, self.target, self.valid)[0]:.1f}  {self.name}'

    @property
    def legend(self) -> list[tuple[str, Colour]]:
        """Meaning of each colour."""
        if self.target is None:
            return [('prediction', PREDICTION)]
        return [('truth, filled where missed', TRUTH), ('prediction, filled where wrong', PREDICTION)]

    def draw(self) -> Image:
        """Draw the overlay, see :func:`~mmgps.visualization.overlay.draw_overlay`."""
        scale = max(1.0, SMALLEST / min(self.image.shape[:2]))
        target = None if self.target is None else _enlarged(self.target, scale)
        return draw_overlay(_enlarged(self.image, scale), target, _enlarged(self.prediction, scale))


@dataclass(frozen=True)
class ClassView:
    """One image with labels of any number of classes, all ``(H, W)``; ``target`` is None without annotation.

    Ignored pixels have the label 255 in ``target``.
    """

    name: str
    image: Image
    prediction: NDArray[np.integer]
    target: NDArray[np.integer] | None
    classes: Sequence[tuple[str, Colour]]

    @property
    def caption(self) -> str:
        """Name of the image, after the mean Dice in percent over the classes that occur if the truth is known."""
        if self.target is None:
            return self.name
        valid = self.target != IGNORE_INDEX
        predicted, truth = self.prediction[valid], self.target[valid]
        dice = [dice_iou(predicted == label, truth == label)[0] for label in np.union1d(predicted, truth)]
        return f'mean Dice {100 * np.mean(dice or [1.0]):.1f}  {self.name}'

    @property
    def legend(self) -> list[tuple[str, Colour]]:
        """Names and colours of the classes that occur."""
        return list(self._shown().values())

    def draw(self) -> Image:
        """Draw the prediction, with the truth on its left if it is known.

        A black class, such as many backgrounds, leaves the image unchanged.
        """
        scale = max(1.0, SMALLEST / min(self.image.shape[:2]))
        image = _enlarged(self.image, scale)
        colours = {label: colour for label, (_, colour) in self._shown().items() if any(colour)}
        drawn = [draw_classes(image, _enlarged(plane, scale), colours) for plane in self._planes()]
        gap = np.full((image.shape[0], GAP, 3), PAPER, np.uint8)
        return drawn[0] if len(drawn) == 1 else np.concatenate([drawn[0], gap, drawn[1]], axis=1)

    def _planes(self) -> list[NDArray[np.integer]]:
        return [self.prediction] if self.target is None else [self.target, self.prediction]

    def _shown(self) -> dict[int, tuple[str, Colour]]:
        """Return name and colour of each label that occurs."""
        labels = sorted({int(label) for plane in self._planes() for label in np.unique(plane)} - {IGNORE_INDEX})
        known = dict(enumerate(self.classes))
        return {label: known.get(label, (f'class {label}', _colour(label))) for label in labels}


View = SampleView | ClassView


def named_classes(meta: Mapping[str, Any]) -> list[tuple[str, Colour]]:
    """Return names and colours of a data set's classes from mmseg's ``metainfo``; missing colours are made."""
    names, palette = meta.get('classes') or (), meta.get('palette')
    given = [] if palette is None or isinstance(palette, str) else [_rgb(colour) for colour in palette]
    return [(str(name), given[at] if at < len(given) else _colour(at)) for at, name in enumerate(names)]


def _rgb(colour: Sequence[int]) -> Colour:
    return int(colour[0]), int(colour[1]), int(colour[2])


def _colour(label: int) -> Colour:
    """Make a colour for a class without one; neighbours are far apart on the colour wheel."""
    return _rgb([round(255 * part) for part in colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.8, 1.0)])


def view_sample(sample: BaseDataElement, network_input: Tensor, classes: Sequence[tuple[str, Colour]] = ()) -> View:
    """Make the view of a prediction of mmseg at the original size.

    Truth and prediction of two classes appear in one picture, those of more classes side by side, also if a network
    predicts more classes than its data set names.

    The image is read from ``img_path``. Sets that draw their frames have no such file; for them the network's input, in
    mmcv's BGR order, is resized to the original size.

    Args:
        sample: A ``SegDataSample`` with ``pred_sem_seg`` and, if known, ``gt_sem_seg``.
        network_input: ``(3, h, w)`` of 0..255, before normalisation.
        classes: Name and RGB colour of each class, if known.

    Raises:
        ValueError: If the data set has two classes and the truth holds another label; names the image.
    """
    path = str(sample.get('img_path', 'image'))
    predicted = _plane(sample.pred_sem_seg.data).astype(np.int64)
    truth = _plane(sample.gt_sem_seg.data).astype(np.int64) if 'gt_sem_seg' in sample else None
    if exists(path):
        image = mmcv.imfrombytes(get(path), channel_order='rgb')
    else:
        image = _from_input(network_input, predicted.shape)
    name = Path(path).stem
    if len(classes) > 2 or predicted.max() > 1:
        return ClassView(name, image, predicted, truth, classes)
    try:
        target, valid = (None, None) if truth is None else split_truth(truth)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    return SampleView(name, image, two_class_mask(predicted, 'the prediction'), target, valid)


def write_view(folder: Path, number: int, view: View) -> None:
    """Write the overlay of one image into ``folder``, named by its number and name."""
    write_png(folder / f'{number:02d}_{view.name}.png', view.draw())


def write_sheet(folder: Path, views: Sequence[View], columns: int) -> Path:
    """Write all overlays to ``contact_sheet.png`` and return its path."""
    legend = list(dict.fromkeys(entry for view in views for entry in view.legend))
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
    if array.ndim == 2:  # labels, which have no values in between
        return cv2.resize(array.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(array, size, interpolation=cv2.INTER_CUBIC)
