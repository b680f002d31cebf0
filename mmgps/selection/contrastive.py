"""The supervised contrastive loss (Khosla et al., NeurIPS 2020, equation 2) and the features that it compares."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07
"""The value in section 3.1 of the paper and in Khosla et al."""


def supervised_contrastive(features: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Pull features with the same label together and push others apart.

    Let ``z`` be the features scaled to length 1, ``A(i)`` all indices except ``i``, and ``P(i)`` those of them with the
    label of ``i``. The loss is the mean over all ``i`` with a nonempty ``P(i)`` of

        -1 / |P(i)|  sum over p in P(i) of  log( exp(z_i z_p / t) / sum over a in A(i) of exp(z_i z_a / t) )

    A feature with a unique label has no term of its own but appears in the sums of the others. Without any pair the
    loss is zero. It is computed in 32 bits or more, even under autocast.

    Args:
        features: ``[N, C]``.
        labels: ``[N]``, equal for features that belong together.
        temperature: ``t``, above 0.

    Raises:
        ValueError: For other shapes, or a temperature that is not above 0.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f'expected features [N, C] and labels [N], got {list(features.shape)} and {list(labels.shape)}'
        )
    if not temperature > 0:
        raise ValueError(f'temperature must be above 0, such as {TEMPERATURE}, got {temperature!r}')
    with torch.autocast(features.device.type, enabled=False):
        z = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
        oneself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        pairs = (labels[:, None] == labels[None]) & ~oneself
        anchors = pairs.any(dim=1)
        if not anchors.any():
            return z.sum() * 0
        # Only rows with a pair: logsumexp of a row that is all -inf would have a gradient of NaN.
        scores = (z @ z.T / temperature).masked_fill(oneself, -torch.inf)[anchors]
        logs = scores - scores.logsumexp(dim=1, keepdim=True)
        pairs = pairs[anchors]
        return -(logs.masked_fill(~pairs, 0).sum(dim=1) / pairs.sum(dim=1)).mean()


def last_feature(outputs: Any) -> Tensor:
    """The last tensor that a backbone returns: its last stage, or the class token of that stage.

    Raises:
        TypeError: If it returns no tensor.
    """
    found = outputs
    while isinstance(found, list | tuple) and len(found):
        found = found[-1]
    if not isinstance(found, Tensor):
        raise TypeError(f'expected one tensor per stage from the backbone, got {type(found).__name__}')
    return found


def pooled(feature: Tensor) -> Tensor:
    """Reduce a feature to one vector ``[N, C]`` per image.

    Class tokens and pooled features ``[N, C]`` are returned as they are; tokens ``[N, L, C]`` and maps ``[N, C, H, W]``
    are averaged.

    Raises:
        ValueError: For another number of dimensions.
    """
    if feature.dim() == 2:
        return feature
    if feature.dim() == 3:
        return feature.mean(dim=1)
    if feature.dim() == 4:
        return feature.mean(dim=(2, 3))
    raise ValueError(
        f'expected a feature [N, C], [N, L, C] or [N, C, H, W] from the backbone, got {list(feature.shape)}; set '
        'target of the hook to a module that returns one'
    )


def spread_pixels(feature: Tensor, labels: Tensor, per_image: int, ignored: int) -> tuple[Tensor, Tensor]:
    """Vectors ``[M, C]`` and labels ``[M]`` of single pixels, spread evenly over each map.

    Args:
        feature: ``[N, C, H, W]``.
        labels: ``[N, h, w]`` at any resolution; the nearest pixel counts.
        per_image: Maximum number of pixels per map.
        ignored: Label of the pixels to omit.

    Raises:
        ValueError: If the feature is no map.
    """
    if feature.dim() != 4:
        raise ValueError(f'pixels need a map [N, C, H, W] from the backbone, got {list(feature.shape)}')
    height, width = feature.shape[2:]
    places = torch.linspace(0, height * width - 1, min(per_image, height * width), device=feature.device).long()
    small = F.interpolate(labels[:, None].float(), (height, width), mode='nearest').long()
    chosen = small.flatten(1)[:, places].flatten()
    vectors = feature.flatten(2)[:, :, places].transpose(1, 2).flatten(0, 1)
    kept = chosen != ignored
    return vectors[kept], chosen[kept]
