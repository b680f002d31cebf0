"""The endoscope's view: its light, what swims before the lens, the lens, and the black surround."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .fields import Image, bgr, fractal_noise, gloss, lambert, normals, plane, smoothstep
from .mucosa import Scene, draw_mucosa
from .polyp import draw_lesion, lay_over


def _light(rng: np.random.Generator, scene: Scene) -> Image:
    """Shade the scene with a lamp beside the lens; deep tissue turns red, wet tissue glistens."""
    lamp = np.array([*rng.uniform(-0.35, 0.35, 2), 1.0], dtype=np.float32)
    normal = normals(scene.height)
    lit = scene.falloff * (0.35 + 0.95 * lambert(normal, lamp) ** 1.5) + 0.02
    # Light that has gone through more tissue has lost more blue and green.
    image = scene.albedo * lit[..., None] ** bgr(1.15, 1.1, 0.9)
    glint = gloss(normal, lamp, 150.0) * scene.wet * smoothstep(lit, 0.2, 0.6)
    return image + smoothstep(glint, 0.5, 0.8)[..., None] * np.float32(rng.uniform(0.4, 1.0))


def _dirt(rng: np.random.Generator, image: Image) -> Image:
    """Stool and bubbles: yellow smears in some frames, small bright rings in some."""
    size = image.shape[0]
    if rng.random() < 0.35:
        field = fractal_noise(rng, size, rng.uniform(2, 6), 3)
        smear = smoothstep(field, rng.uniform(0.5, 0.9), 1.1)[..., None] * rng.uniform(0.3, 0.9)
        bright = image.max(axis=2, keepdims=True)
        image = image + smear * (bright * bgr(0.25, 0.7, 0.9) - image)
    x, y = plane(size)
    for _ in range(rng.integers(2, 9) if rng.random() < 0.2 else 0):
        cx, cy, radius = *rng.uniform(-0.9, 0.9, 2), rng.uniform(0.02, 0.09)
        rho = np.sqrt((x - np.float32(cx)) ** 2 + (y - np.float32(cy)) ** 2) / np.float32(radius)
        spot = np.sqrt((x - np.float32(cx + 0.3 * radius)) ** 2 + (y - np.float32(cy - 0.4 * radius)) ** 2) / radius
        rim = rng.uniform(0.1, 0.4) * np.exp(-(((rho - 0.9) / 0.2) ** 2)) + np.exp(-((spot / 0.25) ** 2))
        image = image + rim.astype(np.float32)[..., None] * (0.1 + image)
    return image


def _lens(rng: np.random.Generator, image: Image) -> Image:
    """Focus, motion, vignette, exposure and sensor noise."""
    size = image.shape[0]
    x, y = plane(size)
    image = cv2.GaussianBlur(image, (0, 0), size / 128 * rng.choice([0.45, 0.7, 1.3], p=[0.5, 0.35, 0.15]))
    if rng.random() < 0.15:
        steps = max(3, round(size * rng.uniform(0.02, 0.05)))
        turn = cv2.getRotationMatrix2D(((steps - 1) / 2, (steps - 1) / 2), rng.uniform(0, 180), 1.0)
        line = np.zeros((steps, steps), np.float32)
        line[steps // 2] = 1.0
        line = cv2.warpAffine(line, turn, (steps, steps))
        image = cv2.filter2D(image, -1, line / line.sum())
    dim = 1.0 - rng.uniform(0.1, 0.5) * (x * x + y * y) * 0.6
    image = image * dim[..., None] * rng.uniform(0.85, 1.35)
    image = image + rng.uniform(0.003, 0.012) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0.0, 1.0) ** np.float32(rng.uniform(0.8, 1.2))


def _view(rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """Visible area: an octagon, a flattened disc or everything, often without a corner for the position viewer."""
    x, y = plane(size)
    wide, cut = rng.uniform(0.93, 1.02, 2), rng.uniform(1.25, 1.6)
    shown = (np.abs(x) < wide[0]) & (np.abs(y) < wide[1])
    kind = rng.random()
    if kind < 0.6:
        shown &= np.abs(x) + np.abs(y) < cut
    elif kind < 0.9:
        shown &= x * x + y * y < cut * 0.85
    if rng.random() < 0.4:
        box = rng.uniform(0.25, 0.4)
        shown &= ~((x < 2 * box - 1) & (y > 1 - 2 * box))
    return shown


def render_polyp_frame(seed: int, index: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw frame ``index`` of the world ``seed``.

    Returns:
        The image ``(size, size, 3)`` in BGR, and the mask ``(size, size)`` with 1 where a polyp is seen. It is the
        inequality the polyp is drawn by, less the black surround; about 4 % of the frames have no polyp.
    """
    rng = np.random.default_rng((seed, index))
    scene = draw_mucosa(rng, size)
    polyp = np.zeros((size, size), dtype=bool)
    for _ in range(rng.choice(3, p=(0.04, 0.82, 0.14))):
        lesion = draw_lesion(rng, size)
        scene = lay_over(rng, scene, lesion)
        polyp |= lesion.inside > 0
    image = _lens(rng, _dirt(rng, _light(rng, scene)))
    shown = _view(rng, size)
    image = np.where(shown[..., None], image, np.float32(rng.uniform(0, 0.06)))
    return (image * 255.0 + 0.5).astype(np.uint8), (polyp & shown).astype(np.uint8)
