"""Labels beside points, where they cover each other least."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mmgps.utils.text import figure_text

DISTANCES = (10, 22, 36, 52, 70)
DIRECTIONS = 12
HALF_POINT = 8
"""Half the width of what a point takes, in pixels."""
LED = 20
"""Distance from which on a line leads from the point to its label."""


def label_points(axes: Any, points: Sequence[tuple[str, float, float, float | None, str]]) -> None:
    """Write the label of each point near it, at the place that covers least of other points and texts.

    Args:
        axes: Drawn before, so that places in pixels are known.
        points: Label, x, y, half the length of its bar, and colour of each.
    """
    taken = [_extent(text) for text in axes.texts] + [_box_of(axes, x, y, bar or 0) for _, x, y, bar, _ in points]
    for label, x, y, _, colour in points:
        tried = []
        for order, place in enumerate(_places()):
            text = _write(axes, label, (x, y), place, colour)
            box = _extent(text)
            text.remove()
            outside = 0 if _within(box, axes.bbox) else box.width * box.height
            tried.append((sum(_shared(box, other) for other in taken) + outside, order, place, box))
            if not tried[-1][0]:
                break
        _, _, place, box = min(tried, key=lambda one: one[:2])
        _write(axes, label, (x, y), place, colour)
        taken.append(box)


def _box_of(axes: Any, x: float, y: float, bar: float) -> Any:
    """What a point and its bar take."""
    from matplotlib.transforms import Bbox

    (left, low), (_, high) = (axes.transData.transform((x, y + sign * bar)) for sign in (-1, 1))
    height = max(high - low, 2 * HALF_POINT)
    return Bbox.from_bounds(left - HALF_POINT, (low + high - height) / 2, 2 * HALF_POINT, height)


def _extent(text: Any) -> Any:
    """The box of a label without the line that leads to it."""
    from matplotlib.text import Text

    text.update_positions(text.figure.canvas.get_renderer())
    return Text.get_window_extent(text)


def _places() -> Iterator[tuple[float, float]]:
    """Offsets in points: near ones first, and to the right before to the left."""
    angles = sorted((math.tau * step / DIRECTIONS for step in range(DIRECTIONS)), key=lambda a: -math.cos(a - 0.3))
    for distance in DISTANCES:
        yield from ((distance * math.cos(angle), distance * math.sin(angle)) for angle in angles)


def _write(axes: Any, label: str, point: tuple[float, float], place: tuple[float, float], colour: str) -> Any:
    side = 'left' if place[0] > 1 else 'right' if place[0] < -1 else 'center'
    line = dict(arrowstyle='-', color=colour, linewidth=0.6, shrinkA=0, shrinkB=3)
    led = line if math.hypot(*place) > LED else None
    options = dict(textcoords='offset points', ha=side, va='center', fontsize=9, color=colour, arrowprops=led)
    return axes.annotate(figure_text(label), point, place, **options)


def _shared(one: Any, other: Any) -> float:
    """Area that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0) * max(height, 0)


def _within(box: Any, frame: Any) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
