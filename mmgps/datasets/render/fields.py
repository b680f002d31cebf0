"""Smooth random fields, which make up all textures, and the light on a height field."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

#: A float32 array ``(H, W)``. Its type says ``Any`` because numpy's stubs widen most operations to float64.
Field = NDArray[Any]
#: A float32 array ``(H, W, 3)``, BGR, 1 is white.
Image = NDArray[Any]
#: Two numbers, for x and y.
Point = NDArray[Any] | tuple[float, float]


def bgr(blue: float, green: float, red: float) -> Image:
    """Return one colour, ``(3,)``."""
    return np.array((blue, green, red), dtype=np.float32)


@lru_cache(maxsize=8)
def plane(size: int) -> tuple[Field, Field]:
    """Return x and y of the pixel centres of a square frame, in [-1, 1]: ``(size, size)``, read-only."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    x, y = (np.ascontiguousarray(a) for a in np.meshgrid(axis, axis))
    x.flags.writeable = y.flags.writeable = False
    return x, y


def local_plane(size: int, centre: Point, angle: float, scale: Point) -> tuple[Field, Field]:
    """Return the coordinates of :func:`plane` from ``centre``, turned by ``angle``, in units of ``scale``."""
    x, y = plane(size)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return (dx * cos + dy * sin) / np.float32(scale[0]), (dy * cos - dx * sin) / np.float32(scale[1])


def smooth_noise(rng: np.random.Generator, size: int, cells: float) -> Field:
    """Draw noise on a grid of about ``cells`` cells per side, interpolated to ``(size, size)``, within [-1.2, 1.2]."""
    nodes = int(np.ceil(cells)) + 2
    grid = rng.uniform(-1.0, 1.0, (nodes, nodes)).astype(np.float32)
    pixels = max(round(nodes * size / cells), size)
    field = cv2.resize(grid, (pixels, pixels), interpolation=cv2.INTER_CUBIC)
    top, left = rng.integers(0, pixels - size + 1, 2)
    return field[top : top + size, left : left + size]


def fractal_noise(rng: np.random.Generator, size: int, cells: float, octaves: int = 3, gain: float = 0.5) -> Field:
    """Sum ``octaves`` layers of :func:`smooth_noise`, each twice as fine and ``gain`` times as strong."""
    total = smooth_noise(rng, size, cells)
    for octave in range(1, octaves):
        total = total + gain**octave * smooth_noise(rng, size, cells * 2**octave)
    return total


def smoothstep(field: Field, low: float, high: float) -> Field:
    """Rise from 0 at ``low`` to 1 at ``high`` with zero slope at both ends; ``low > high`` falls instead."""
    t = np.clip((field - low) * (1.0 / (high - low)), 0.0, 1.0).astype(np.float32)
    return t * t * (3.0 - 2.0 * t)


def normals(height: Field, relief: float = 1.0) -> tuple[Field, Field, Field]:
    """Return the unit normals ``(nx, ny, nz)`` of ``height``, a field over [-1, 1] x [-1, 1], each ``(H, W)``."""
    slope = relief * height.shape[0] / 16.0  # Scharr sums to 32 per two pixels; one pixel is 2 / H
    nx = -slope / 2.0 * 0.5 * cv2.Scharr(height, cv2.CV_32F, 1, 0)
    ny = -slope / 2.0 * 0.5 * cv2.Scharr(height, cv2.CV_32F, 0, 1)
    length = 1.0 / np.sqrt(nx * nx + ny * ny + 1.0)
    return nx * length, ny * length, length


def lambert(normal: tuple[Field, Field, Field], light: Field) -> Field:
    """Return the cosine between the normals and the direction ``light`` (three numbers), clipped at 0: ``(H, W)``."""
    lx, ly, lz = light / np.linalg.norm(light)
    return np.maximum(normal[0] * lx + normal[1] * ly + normal[2] * lz, 0.0)


def gloss(normal: tuple[Field, Field, Field], light: Field, sharpness: float) -> Field:
    """Return Blinn's highlight seen from straight above: the cosine to the half vector to the power ``sharpness``."""
    half = light / np.linalg.norm(light) + np.array([0.0, 0.0, 1.0], dtype=np.float32)
    return lambert(normal, half) ** np.float32(sharpness)
