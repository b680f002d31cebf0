"""Polyps: sessile, pedunculated and flat ones, laid over a scene."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .fields import Field, Image, bgr, fractal_noise, plane, smoothstep
from .mucosa import Scene, tissue


@dataclass(frozen=True)
class Lesion:
    """A polyp's outline and relief.

    Attributes:
        inside: Positive within the polyp, ``(H, W)``; its sign is the truth mask.
        height: Relief over the wall, ``(H, W)``, in half frame widths.
    """

    inside: Field
    height: Field


def _lobed(rng: np.random.Generator, u: Field, v: Field, lobes: float) -> Field:
    """The distance from the centre in units of a wavy outline."""
    angle = np.arctan2(v, u)
    edge = np.ones_like(u)
    for k in range(2, 7):
        edge += np.float32(lobes * rng.normal() / k) * np.cos(k * angle + np.float32(rng.uniform(0, 6.3)))
    return np.sqrt(u * u + v * v) / np.maximum(edge, 0.4)


def _dome(rng: np.random.Generator, u: Field, v: Field, radius: float) -> Lesion:
    rho = _lobed(rng, u, v, rng.uniform(0.02, 0.25))
    # Above 0.5 the rim leans and the polyp grows out of the wall; at 0.5 it stands on it like a ball.
    dome = np.maximum(1.0 - rho * rho, 0.0) ** np.float32(rng.uniform(0.5, 1.1))
    return Lesion(1.0 - rho, radius * np.float32(rng.uniform(0.45, 0.9)) * dome)


def _plaque(rng: np.random.Generator, u: Field, v: Field, radius: float) -> Lesion:
    rho = _lobed(rng, u, v, rng.uniform(0.15, 0.45))
    return Lesion(1.0 - rho, radius * np.float32(rng.uniform(0.15, 0.35)) * smoothstep(rho, 1.0, 0.6))


def _stalked(rng: np.random.Generator, u: Field, v: Field, radius: float) -> Lesion:
    head = _dome(rng, u, v, radius)
    width, reach = rng.uniform(0.25, 0.45), rng.uniform(1.6, 2.4)
    bend = v + np.float32(rng.uniform(-0.3, 0.3)) * u * u
    stalk = np.minimum(width - np.abs(bend), np.minimum(u, reach - u)).astype(np.float32)
    rod = radius * 0.6 * np.sqrt(np.maximum(width * width - bend * bend, 0.0)) * (stalk > 0)
    return Lesion(np.maximum(head.inside, stalk), np.where(head.inside > 0, head.height, rod).astype(np.float32))


_FORMS = (_dome, _plaque, _stalked)


def draw_lesion(rng: np.random.Generator, size: int) -> Lesion:
    """Choose a form, a place and a size, and draw the outline with its relief."""
    x, y = plane(size)
    radius = float(np.exp(rng.uniform(np.log(0.2), np.log(0.65))))
    reach, where = rng.uniform(0, 0.75), rng.uniform(0, 2 * np.pi)
    dx, dy = x - np.float32(reach * np.cos(where)), y - np.float32(reach * np.sin(where))
    turn, flat = rng.uniform(0, 2 * np.pi), rng.uniform(0.65, 1.0)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = (dx * cos + dy * sin) / np.float32(radius), (dy * cos - dx * sin) / np.float32(radius * flat)
    return _FORMS[rng.choice(3, p=(0.6, 0.2, 0.2))](rng, u, v, radius)


def _skin(rng: np.random.Generator, size: int, ground: Image) -> Image:
    """The polyp's colour: near the wall's, at times redder or paler, mottled or with a pit pattern."""
    colour = ground * rng.uniform(0.92, 1.12, 3).astype(np.float32)
    colour = colour + rng.uniform(0, 0.3) * (tissue(rng) - colour)
    if rng.random() < 0.3:
        colour = colour * bgr(0.8, 0.8, 1.0)
    pits = fractal_noise(rng, size, rng.uniform(6, 30), 2, 0.6)
    return colour * (1.0 + rng.uniform(0.03, 0.2) * pits)[..., None]


def lay_over(rng: np.random.Generator, scene: Scene, lesion: Lesion) -> Scene:
    """Put the polyp on the wall: it hides folds and vessels, and shades the wall around its foot."""
    size = scene.height.shape[0]
    mask = (lesion.inside > 0).astype(np.float32)
    middle = np.maximum(mask.sum(), 1.0)
    ground = (scene.albedo * mask[..., None]).sum((0, 1)) / middle
    light = max(float((scene.falloff * mask).sum() / middle), 0.3) * rng.uniform(1.0, 1.4)
    shadow = rng.uniform(0.1, 0.5) * cv2.GaussianBlur(mask, (0, 0), size * rng.uniform(0.01, 0.04))
    rough = rng.uniform(0.0, 0.025) * fractal_noise(rng, size, rng.uniform(6, 20), 2)
    wall = cv2.GaussianBlur(scene.height, (0, 0), size * 0.04)
    colour = _skin(rng, size, ground)
    cover = mask[..., None]
    keep = np.float32(rng.uniform(0.1, 0.6))  # how much the wall's own light shows on the polyp
    lit = light + keep * (scene.falloff - light)
    return Scene(
        height=np.where(mask > 0, wall + lesion.height + rough, scene.height),
        falloff=np.where(mask > 0, lit, scene.falloff * (1.0 - shadow)),
        albedo=np.where(cover > 0, colour, scene.albedo).astype(np.float32),
        wet=np.maximum(scene.wet, mask * np.float32(rng.uniform(0.2, 1.0))),
    )
