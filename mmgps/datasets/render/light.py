"""Light on a height field: normals, diffuse and specular shading."""

from __future__ import annotations

import cv2
import numpy as np

from mmgps.datasets.render.noise import Field


def normals(height: Field, relief: float = 1.0) -> tuple[Field, Field, Field]:
    """Unit normals ``(nx, ny, nz)`` of ``height``, a field over the plane [-1, 1] x [-1, 1], each ``(H, W)``."""
    slope = relief * height.shape[0] / 16.0  # Scharr sums to 32 per two pixels; one pixel is 2 / H
    nx = -slope / 2.0 * 0.5 * cv2.Scharr(height, cv2.CV_32F, 1, 0)
    ny = -slope / 2.0 * 0.5 * cv2.Scharr(height, cv2.CV_32F, 0, 1)
    length = 1.0 / np.sqrt(nx * nx + ny * ny + 1.0)
    return nx * length, ny * length, length


def lambert(normal: tuple[Field, Field, Field], light: Field) -> Field:
    """The cosine between the normals and the direction ``light`` (three numbers), clipped at 0: ``(H, W)``."""
    lx, ly, lz = light / np.linalg.norm(light)
    return np.maximum(normal[0] * lx + normal[1] * ly + normal[2] * lz, 0.0)


def gloss(normal: tuple[Field, Field, Field], light: Field, sharpness: float) -> Field:
    """Blinn's highlight seen from straight above: the cosine to the half vector to the power ``sharpness``."""
    half = light / np.linalg.norm(light) + np.array([0.0, 0.0, 1.0], dtype=np.float32)
    return lambert(normal, half) ** np.float32(sharpness)
