"""The bowel wall: a lumen or a wall seen face on, haustral folds, vessels and colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import Field, Image, bgr, fractal_noise, plane, smooth_noise, smoothstep


@dataclass
class Scene:
    """Scene before the camera; each field covers the plane of the frame.

    Attributes:
        height: Relief towards the camera, ``(H, W)``, in half frame widths.
        falloff: Light that arrives at the wall, ``(H, W)``, 0 to about 1: the lumen is dark because it is far.
        albedo: Colour, ``(H, W, 3)``, BGR in [0, 1].
        wet: Glossiness of the surface, ``(H, W)``.
    """

    height: Field
    falloff: Field
    albedo: Image
    wet: Field


def _depth(rng: np.random.Generator, size: int) -> tuple[Field, Field, Field]:
    """Depth into the bowel, the angle around the lumen (or the place along the wall) and the light that arrives."""
    x, y = plane(size)
    angle = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.6:
        away = np.sqrt(rng.uniform(0, 1.1))
        dx, dy = x - np.float32(away * np.cos(angle)), y - np.float32(away * np.sin(angle))
        around = np.arctan2(dy, dx)
        corners = 1.0 + rng.uniform(0, 0.15) * np.cos(3 * around + np.float32(angle))
        warp = 1.0 + rng.uniform(0.1, 0.3) * fractal_noise(rng, size, rng.uniform(1.5, 3.5), 2, 0.4)
        radius = np.sqrt(dx * dx + dy * dy) * corners * warp + 0.03
        return -np.log(radius), around, smoothstep(radius, rng.uniform(-0.3, 0.1), rng.uniform(0.6, 1.2))
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = x * cos + y * sin + 0.3 * smooth_noise(rng, size, 2)
    return 0.7 * along, x * sin - y * cos, smoothstep(along, rng.uniform(1.0, 2.5), -1.2)


def _folds(rng: np.random.Generator, size: int, depth: Field, around: Field) -> tuple[Field, Field]:
    """Haustral folds: relief and shade. Each rises towards the camera and hides what lies behind its rim."""
    wobble = 0.35 * smooth_noise(rng, size, 2) + rng.uniform(0, 0.2) * np.cos(3 * around)
    phase = depth * rng.uniform(1.0, 2.4) + wobble + rng.uniform(0, 1)
    t = (phase - np.floor(phase)).astype(np.float32)
    strength = rng.uniform(0.2, 1.0) * smoothstep(smooth_noise(rng, size, 1.5), -0.7, 0.3)
    behind = np.exp(-t / np.float32(rng.uniform(0.08, 0.3)))
    shade = 1.0 + strength * (0.3 * t * t - rng.uniform(0.3, 0.75) * behind)
    # A rounded rim: the wall swells over most of the period and turns down just before it ends.
    swell = smoothstep(t, 0.1, 0.75) * smoothstep(t, 1.0, 0.85)
    return rng.uniform(0.08, 0.25) * strength * swell, shade


def _vessels(rng: np.random.Generator, size: int) -> Field:
    """Branching lines where a noise crosses zero, in two widths, fading in and out: ``(H, W)`` in [0, 1]."""
    coarse = fractal_noise(rng, size, rng.uniform(2.0, 4.5), 3, 0.6)
    fine = fractal_noise(rng, size, rng.uniform(6.0, 11.0), 2, 0.6)
    lines = np.exp(-((coarse / rng.uniform(0.03, 0.06)) ** 2)) + 0.6 * np.exp(-((fine / 0.1) ** 2))
    return np.minimum(lines, 1.0) * smoothstep(smooth_noise(rng, size, 2), -0.5, 0.7)


def tissue(rng: np.random.Generator) -> Image:
    """A colour of healthy mucosa, BGR: salmon to orange, rose or brown."""
    red = rng.uniform(0.7, 1.0)
    green = red * rng.uniform(0.45, 0.72)
    return np.array([green * rng.uniform(0.6, 1.05), green, red], dtype=np.float32)


def _colour(rng: np.random.Generator, size: int, lines: Field) -> Image:
    base, other = tissue(rng), tissue(rng)
    blend = 0.35 * smoothstep(fractal_noise(rng, size, 1.5), -0.8, 1.2)
    albedo = base + blend[..., None] * (other - base)
    # Inflamed spots: as red as a red polyp, so that colour alone decides nothing.
    sore = smoothstep(fractal_noise(rng, size, rng.uniform(1.5, 5)), rng.uniform(0.2, 1.2), 1.6) * rng.uniform(0, 0.8)
    albedo = albedo * (1.0 - sore[..., None] * bgr(0.5, 0.55, 0.1))
    albedo = albedo * (1.0 - (rng.uniform(0.0, 1.0) * lines)[..., None] * bgr(0.45, 0.5, 0.18))
    return albedo * (1.0 + 0.06 * fractal_noise(rng, size, 8, 3, 0.7))[..., None]


def draw_mucosa(rng: np.random.Generator, size: int) -> Scene:
    """Draw a bowel without polyps."""
    depth, around, falloff = _depth(rng, size)
    relief, shade = _folds(rng, size, depth, around)
    swell = rng.uniform(0.05, 0.3) * fractal_noise(rng, size, rng.uniform(1.5, 3.5), 2, 0.4)
    grain = rng.uniform(0.001, 0.006) * fractal_noise(rng, size, size / 8, 2, 0.7)
    albedo = _colour(rng, size, _vessels(rng, size))
    wet = smoothstep(smooth_noise(rng, size, 3), rng.uniform(-0.6, 0.6), 1.0)
    bumps = rng.uniform(0.0, 0.12) * smoothstep(fractal_noise(rng, size, rng.uniform(3, 6), 2, 0.4), 0.1, 1.1)
    return Scene(relief + swell + bumps + grain, np.maximum(falloff * shade, 0.0), albedo, wet)
