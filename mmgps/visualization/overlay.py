"""Draw truth and prediction into an image: two classes as outlines, more classes in their colours."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmgps.evaluation.foreground import Mask, two_class_mask

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

#: RGB. They differ in lightness and along blue-yellow, visible to red-green blind eyes; neither occurs in mucosa.
TRUTH: Colour = (90, 255, 80)
PREDICTION: Colour = (40, 110, 255)
HALO: Colour = (0, 0, 0)
FILL, CLASS_FILL = 0.35, 0.5
#: Width of a line as a share of the image's shorter side.
LINE = 1 / 160


def draw_overlay(image: Image, target: ArrayLike | None, prediction: ArrayLike, fill: float = FILL) -> Image:
    """Draw the outlines of the truth and of the prediction onto a copy of the image.

    The truth's line is wider and lies below, so it frames the prediction's where both coincide. Missed regions are
    filled with the truth's colour, false ones with the prediction's.

    Args:
        image: ``(H, W, 3)`` RGB, uint8.
        target: ``(H, W)`` of 0 and 1 or boolean; None if the truth is unknown.
        prediction: ``(H, W)`` of 0 and 1 or boolean.
        fill: Opacity of the filled errors; 0 leaves them unfilled.

    Returns:
        ``(H, W, 3)`` RGB, uint8.

    Raises:
        ValueError: If the image is not uint8 RGB, the sizes differ, or ``fill`` leaves [0, 1].
    """
    check_image(image)
    if not 0 <= fill <= 1:
        raise ValueError(f'fill={fill} is an opacity; expected a number in [0, 1]')
    predicted = _mask(prediction, 'prediction', image)
    canvas = image.copy()
    width = max(1, round(min(image.shape[:2]) * LINE))
    lines = [(predicted, PREDICTION, width)]
    if target is not None:
        truth = _mask(target, 'target', image)
        _tint(canvas, truth & ~predicted, TRUTH, fill)
        _tint(canvas, predicted & ~truth, PREDICTION, fill)
        lines.insert(0, (truth, TRUTH, 2 * width + 1))
    # All halos come first, because that of the upper line would cover the lower line.
    for mask, _, thickness in lines:
        _outline(canvas, mask, HALO, thickness + 2)
    for mask, colour, thickness in lines:
        _outline(canvas, mask, colour, thickness)
    return canvas


def draw_classes(image: Image, labels: NDArray[np.integer], colours: Mapping[int, Colour]) -> Image:
    """Draw every class in its colour, with an outline around each region, onto a copy of the image.

    Args:
        image: ``(H, W, 3)`` RGB, uint8.
        labels: ``(H, W)`` of class indices; pixels whose label has no colour remain unchanged.
        colours: Colour of each class to draw.

    Returns:
        ``(H, W, 3)`` RGB, uint8.

    Raises:
        ValueError: If the image is not uint8 RGB or the sizes differ.
    """
    check_image(image)
    if labels.shape != image.shape[:2]:
        raise ValueError(f'the labels are {labels.shape} and the image {image.shape[:2]}; bring them to one size first')
    canvas = image.copy()
    width = max(1, round(min(image.shape[:2]) * LINE))
    shown = {int(label) for label in np.unique(labels)} & colours.keys()
    for label in sorted(shown):
        _tint(canvas, labels == label, colours[label], CLASS_FILL)
    for label in sorted(shown):
        _outline(canvas, labels == label, colours[label], width)
    return canvas


def check_image(image: Image) -> None:
    """Raise ``ValueError`` unless ``image`` is ``(H, W, 3)`` uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'an image of shape {image.shape} and type {image.dtype}; expected (H, W, 3) RGB of uint8')


def _mask(labels: ArrayLike, name: str, image: Image) -> Mask:
    mask = two_class_mask(labels, name)
    if mask.shape != image.shape[:2]:
        raise ValueError(f'the {name} is {mask.shape} and the image {image.shape[:2]}; bring them to one size first')
    return mask


def _tint(canvas: Image, where: Mask, colour: Colour, opacity: float) -> None:
    canvas[where] = np.round((1 - opacity) * canvas[where] + opacity * np.asarray(colour)).astype(np.uint8)


def _outline(canvas: Image, mask: Mask, colour: Colour, width: int) -> None:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    # Smoothing spreads a line of one pixel so far that little of its colour remains.
    smooth = cv2.LINE_AA if width > 1 else cv2.LINE_8
    cv2.drawContours(canvas, outlines, -1, colour, width, smooth)
