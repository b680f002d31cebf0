"""Contact sheet of several captioned images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from mmgps.utils.atomic_file import write_atomically

from .overlay import Colour, Image, check_image

TILE = 320
GAP = 8
BAR = 28
PAPER: Colour = (24, 24, 24)
INK: Colour = (235, 235, 235)
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE = 0.5


def contact_sheet(
    images: Sequence[Image],
    captions: Sequence[str],
    columns: int = 4,
    legend: Sequence[tuple[str, Colour]] = (),
    tile: int = TILE,
) -> Image:
    """Lay images out in rows, each above a bar with its caption.

    Args:
        images: ``(H, W, 3)`` RGB of uint8, of any sizes; each is scaled to a square tile with its proportions kept.
        captions: One line for each image; a caption too long for its tile loses its middle.
        columns: Tiles per row; fewer images make a narrower sheet.
        legend: Meaning and RGB colour of the drawings in the images, for a bar at the bottom.
        tile: Side of a tile in pixels.

    Returns:
        ``(H, W, 3)`` RGB of uint8.

    Raises:
        ValueError: If there is no image, the numbers of images and captions differ, ``columns`` or ``tile`` is below
            its minimum (1 and 64), or an image is not uint8 RGB.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f'{len(images)} images and {len(captions)} captions; expected equal numbers, and at least one')
    if columns < 1 or tile < 64:
        raise ValueError(f'a sheet needs columns >= 1 and tile >= 64, found {columns=}, {tile=}')
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = tile + GAP, tile + BAR + GAP
    height = rows * step_y + GAP + (BAR if legend else 0)
    sheet = np.full((height, columns * step_x + GAP, 3), PAPER, np.uint8)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        place = sheet[GAP + row * step_y :, GAP + column * step_x :][: tile + BAR, :tile]
        place[:tile] = _fitted(image, tile)
        _write(place[tile:], _shortened(caption, tile), 0)
    if legend:
        _write_legend(sheet[rows * step_y + GAP // 2 :, GAP:][:BAR], legend)
    return sheet


def write_png(path: str | os.PathLike[str], image: Image) -> None:
    """Write an RGB image as PNG, replacing ``path`` atomically and creating its folder if needed."""
    check_image(image)
    _, content = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_atomically(path, content.tobytes())


def _fitted(image: Image, tile: int) -> Image:
    check_image(image)
    scale = tile / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    square = np.full((tile, tile, 3), PAPER, np.uint8)
    top, left = (tile - height) // 2, (tile - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=method)
    return square


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, FONT, FONT_SCALE, 1)[0][0]


def _shortened(caption: str, width: int) -> str:
    kept, text = len(caption), caption
    while _text_width(text) > width and kept > 2:
        kept -= 1
        text = f'{caption[: kept // 2]}...{caption[len(caption) - (kept - kept // 2) :]}'
    return text


def _write(bar: Image, text: str, left: int) -> None:
    # OpenCV draws only into contiguous memory, which a row of a sheet is not.
    copy = np.ascontiguousarray(bar)
    cv2.putText(copy, text, (left, BAR - 9), FONT, FONT_SCALE, INK, 1, cv2.LINE_AA)
    bar[:] = copy


def _write_legend(bar: Image, legend: Sequence[tuple[str, Colour]]) -> None:
    left = 0
    for text, colour in legend:
        if left + 32 + _text_width(text) > bar.shape[1] - _text_width('...') and left:
            _write(bar, '...', left)
            return
        bar[BAR // 2 - 2 : BAR // 2 + 3, left : left + 24] = colour
        _write(bar, text, left + 32)
        left += 32 + _text_width(text) + 24
