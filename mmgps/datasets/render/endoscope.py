"""Frames of a colonoscopy: the bowel wall, polyps on it, and the view through the endoscope."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .fields import (
    Field,
    Image,
    bgr,
    fractal_noise,
    gloss,
    lambert,
    local_plane,
    normals,
    plane,
    smooth_noise,
    smoothstep,
)


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
    """Draw the depth into the bowel, the angle around the lumen (or the place along the wall) and the light there."""
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
    """Draw haustral folds: relief and shade. Each rises towards the camera and hides the wall behind its rim."""
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
    """Draw branching lines where noise crosses zero, in two widths, fading in and out: ``(H, W)`` in [0, 1]."""
    coarse = fractal_noise(rng, size, rng.uniform(2.0, 4.5), 3, 0.6)
    fine = fractal_noise(rng, size, rng.uniform(6.0, 11.0), 2, 0.6)
    lines = np.exp(-((coarse / rng.uniform(0.03, 0.06)) ** 2)) + 0.6 * np.exp(-((fine / 0.1) ** 2))
    return np.minimum(lines, 1.0) * smoothstep(smooth_noise(rng, size, 2), -0.5, 0.7)


def tissue(rng: np.random.Generator) -> Image:
    """Draw a colour of healthy mucosa, BGR: salmon to orange, rose or brown."""
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


@dataclass(frozen=True)
class Lesion:
    """A polyp's outline and relief.

    Attributes:
        inside: Positive within the polyp, ``(H, W)``; its sign is the true mask.
        height: Relief over the wall, ``(H, W)``, in half frame widths.
    """

    inside: Field
    height: Field


def _lobed(rng: np.random.Generator, u: Field, v: Field, lobes: float) -> Field:
    """Return the distance from the centre in units of a wavy outline."""
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
    radius = float(np.exp(rng.uniform(np.log(0.2), np.log(0.65))))
    reach, where = rng.uniform(0, 0.75), rng.uniform(0, 2 * np.pi)
    turn, flat = rng.uniform(0, 2 * np.pi), rng.uniform(0.65, 1.0)
    u, v = local_plane(size, (reach * np.cos(where), reach * np.sin(where)), turn, (radius, radius * flat))
    return _FORMS[rng.choice(3, p=(0.6, 0.2, 0.2))](rng, u, v, radius)


def _skin(rng: np.random.Generator, size: int, ground: Image) -> Image:
    """Draw the polyp's colour: like the wall's, at times redder or paler, mottled or with a pit pattern."""
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
    keep = np.float32(rng.uniform(0.1, 0.6))  # share of the wall's own light on the polyp
    lit = light + keep * (scene.falloff - light)
    return Scene(
        height=np.where(mask > 0, wall + lesion.height + rough, scene.height),
        falloff=np.where(mask > 0, lit, scene.falloff * (1.0 - shadow)),
        albedo=np.where(cover > 0, colour, scene.albedo).astype(np.float32),
        wet=np.maximum(scene.wet, mask * np.float32(rng.uniform(0.2, 1.0))),
    )


def _light(rng: np.random.Generator, scene: Scene) -> Image:
    """Shade the scene with a lamp beside the lens; deep tissue turns red, wet tissue glistens."""
    lamp = np.array([*rng.uniform(-0.35, 0.35, 2), 1.0], dtype=np.float32)
    normal = normals(scene.height)
    lit = scene.falloff * (0.35 + 0.95 * lambert(normal, lamp) ** 1.5) + 0.02
    # Light loses more blue and green on a longer way through tissue.
    image = scene.albedo * lit[..., None] ** bgr(1.15, 1.1, 0.9)
    glint = gloss(normal, lamp, 150.0) * scene.wet * smoothstep(lit, 0.2, 0.6)
    return image + smoothstep(glint, 0.5, 0.8)[..., None] * np.float32(rng.uniform(0.4, 1.0))


def _dirt(rng: np.random.Generator, image: Image) -> Image:
    """Add stool and bubbles: yellow smears in some frames, small bright rings in others."""
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
    """Add focus, motion, vignette, exposure and sensor noise."""
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
    """Draw the visible area: an octagon, a flattened disc or the whole frame, often without one corner."""
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
        The image ``(size, size, 3)`` in BGR, and the mask ``(size, size)`` with 1 where a polyp is visible. The
        mask comes from the inequality that draws the polyp, less the black surround; about 4 % of the frames have none.
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
