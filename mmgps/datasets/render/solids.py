"""Textured, shaded solids and flat shapes, in piles: the pre-training domain."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .fields import Field, fractal_noise, gloss, lambert, local_plane, normals, plane, smooth_noise, smoothstep

# A shape takes local coordinates, in which it fills about the unit disc, and returns (inside > 0, height).
Shape = Callable[[np.random.Generator, Field, Field], tuple[Field, Field]]


def ball(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """An ellipsoid: a dome with an upright rim."""
    inside = 1.0 - x * x - y * y
    return inside, np.sqrt(np.maximum(inside, 0.0))


def pyramid(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """A pyramid over a regular polygon of 3 to 5 sides."""
    sides = int(rng.integers(3, 6))
    turns = np.arange(sides) * (2 * np.pi / sides)
    inside = 0.75 - np.max([x * np.float32(np.cos(t)) + y * np.float32(np.sin(t)) for t in turns], axis=0)
    return inside, np.maximum(inside, 0.0) * 1.2


def rod(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """A cylinder lying on its side."""
    width = rng.uniform(0.2, 0.45)
    inside = np.minimum(1.0 - np.abs(x), width - np.abs(y))
    return inside, np.sqrt(np.maximum(width * width - y * y, 0.0))


def ring(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """A torus seen from above."""
    tube = rng.uniform(0.15, 0.3)
    inside = tube - np.abs(np.sqrt(x * x + y * y) - (1.0 - tube))
    return inside, np.sqrt(np.maximum(tube * tube - (tube - inside) ** 2, 0.0))


def star(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """A flat star with 4 to 7 points and a bevelled edge."""
    points, angle = int(rng.integers(4, 8)), np.arctan2(y, x)
    inside = 0.7 + 0.3 * np.cos(points * angle) - np.sqrt(x * x + y * y)
    return inside, np.minimum(np.maximum(inside, 0.0), 0.15)


def blob(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """A soft, irregular mound without a sharp rim."""
    angle, radius = np.arctan2(y, x), np.sqrt(x * x + y * y)
    edge = 0.8 + sum(
        rng.uniform(-0.12, 0.12) * np.cos(k * angle + np.float32(rng.uniform(0, 6.28))) for k in (2, 3, 4, 5)
    )
    inside = (edge - radius).astype(np.float32)
    return inside, 0.6 * smoothstep(inside, 0.0, 0.8)


def dent(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """A hollow: a ball turned inside out, which differs from a ball only in its shading."""
    inside, height = ball(rng, x, y)
    return inside, -height


SHAPES: dict[str, Shape] = {shape.__name__: shape for shape in (ball, pyramid, rod, ring, star, blob, dent)}


def _stripes(rng: np.random.Generator, size: int) -> Field:
    x, y = plane(size)
    angle, wave = rng.uniform(0, np.pi), rng.uniform(8, 40)
    bend = 3.0 * rng.uniform(0, 1) * smooth_noise(rng, size, 3)
    return np.sin(wave * (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) + bend).astype(np.float32)


def _dots(rng: np.random.Generator, size: int) -> Field:
    return 2.0 * smoothstep(smooth_noise(rng, size, rng.uniform(8, 30)), 0.2, 0.5) - 1.0


def _veins(rng: np.random.Generator, size: int) -> Field:
    field = fractal_noise(rng, size, rng.uniform(2, 6))
    return 2.0 * np.exp(-((field / rng.uniform(0.05, 0.2)) ** 2)) - 1.0


def _clouds(rng: np.random.Generator, size: int) -> Field:
    return fractal_noise(rng, size, rng.uniform(2, 16))


def material(rng: np.random.Generator, size: int) -> Field:
    """A random two-colour texture ``(size, size, 3)``, in [0, 1]."""
    texture = (_stripes, _dots, _veins, _clouds)[rng.integers(4)](rng, size)
    mix = (0.5 + 0.5 * np.clip(texture, -1, 1))[..., None]
    first = rng.uniform(0.1, 1.0, 3).astype(np.float32)
    # Often close to the first colour, so that colour alone does not reveal the shape.
    second = np.clip(first + rng.normal(0, rng.choice([0.05, 0.15]), 3), 0.05, 1.0).astype(np.float32)
    return first + mix * (second - first)


def _place(rng: np.random.Generator, size: int, shape: Shape) -> tuple[NDArray[np.bool_], Field]:
    angle, big = rng.uniform(0, 2 * np.pi), rng.uniform(0.22, 0.65)
    scale, centre = big * rng.uniform(0.6, 1.0, 2), rng.uniform(-0.95, 0.95, 2)
    inside, height = shape(rng, *local_plane(size, centre, angle, scale))
    return inside > 0, (height * np.float32(big)).astype(np.float32)


def _pile(rng: np.random.Generator, size: int) -> tuple[Field, Field, NDArray[np.uint8]]:
    albedo, height = material(rng, size), 0.06 * fractal_noise(rng, size, rng.uniform(1, 4))
    labels = np.zeros((size, size), np.uint8)
    shapes = list(SHAPES.values())
    own = albedo
    for _ in range(rng.integers(3, 9)):
        label = int(rng.integers(len(shapes)))
        where, relief = _place(rng, size, shapes[label])
        if rng.random() < 0.85:  # the others take the material below them
            own = material(rng, size)
            albedo = np.where(where[..., None], own, albedo)
        height = np.where(where, height * 0.3 + relief, height)
        labels[where] = label + 1
    return albedo, height, labels


def render_shapes(seed: int, index: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render frame ``index`` of the world ``seed``.

    Returns:
        The image ``(size, size, 3)`` in BGR and the labels ``(size, size)``: 0 for background, i for the i-th of
        :data:`SHAPES`.
    """
    rng = np.random.default_rng((seed, index))
    albedo, height, labels = _pile(rng, size)
    light = np.array([*rng.uniform(-1.0, 1.0, 2), rng.uniform(0.5, 1.5)], dtype=np.float32)
    normal = normals(height + 0.01 * rng.uniform(0, 1) * smooth_noise(rng, size, size / 4), rng.uniform(0.6, 1.2))
    ambient = rng.uniform(0.15, 0.45)
    lit = (ambient + (1.1 - ambient) * lambert(normal, light)) * (1.0 + 0.3 * smooth_noise(rng, size, 1.5))
    image: Field = albedo * lit[..., None]
    image = image + (rng.uniform(0, 0.8) * gloss(normal, light, rng.uniform(8, 80)))[..., None]
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.2)))
    image = image + rng.uniform(0, 0.04) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image * 255.0, 0, 255).astype(np.uint8), labels
