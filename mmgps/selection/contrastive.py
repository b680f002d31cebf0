"""The supervised contrastive loss (Khosla et al., NeurIPS 2020, equation 2), and the features that it compares."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07
"""Value of the paper, section 3.1, and of Khosla et al."""


def supervised_contrastive(features: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Pull features of one label together and push those of others apart.

    With ``z`` the features scaled to length 1, ``A(i)`` all indices but ``i`` and ``P(i)`` those of them with the label
    of ``i``, the mean over all ``i`` whose ``P(i)`` is not empty of

        -1 / |P(i)|  sum over p in P(i) of  log( exp(z_i z_p / t) / sum over a in A(i) of exp(z_i z_a / t) )

    A feature that no other shares a label with has no term of its own, but appears in the sums of the others. Without
    any pair the loss is zero. It is computed in 32 bits or more, also under autocast.

    Args:
        features: ``[N, C]``.
        labels: ``[N]``, equal for features that belong together.
        temperature: ``t``, above 0.

    Returns:
        A scalar.

    Raises:
        ValueError: For shapes other than these or a temperature that is not above 0.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f'expected features [N, C] and labels [N], got {list(features.shape)} and {list(labels.shape)}'
        )
    if not temperature > 0:
        raise ValueError(f'temperature is to be above 0, such as {TEMPERATURE}, got {temperature!r}')
    with torch.autocast(features.device.type, enabled=False):
        z = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
        oneself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        pairs = (labels[:, None] == labels[None]) & ~oneself
        anchors = pairs.any(dim=1)
        if not anchors.any():
            return z.sum() * 0
        # Only rows with a pair: in a row of nothing but -inf, logsumexp would have a gradient of NaN.
        scores = (z @ z.T / temperature).masked_fill(oneself, -torch.inf)[anchors]
        logs = scores - scores.logsumexp(dim=1, keepdim=True)
        pairs = pairs[anchors]
        return -(logs.masked_fill(~pairs, 0).sum(dim=1) / pairs.sum(dim=1)).mean()


def last_feature(outputs: Any) -> Tensor:
    """The last tensor that a backbone returns: that of its last stage, and the class token of a stage that has one.

    Raises:
        TypeError: If there is none.
    """
    found = outputs
    while isinstance(found, list | tuple) and len(found):
        found = found[-1]
    if not isinstance(found, Tensor):
        raise TypeError(f'expected tensors from the backbone, one for each stage, got {type(found).__name__}')
    return found


def pooled(feature: Tensor) -> Tensor:
    """One vector ``[N, C]`` for each image.

    ``[N, C]``, a class token or a feature that the backbone pooled, stays; tokens ``[N, L, C]`` and maps
    ``[N, C, H, W]`` are averaged.

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
        f'a feature of the backbone is [N, C], [N, L, C] or [N, C, H, W], got {list(feature.shape)}; name the module '
        'that returns one by target of the hook'
    )


def spread_pixels(feature: Tensor, labels: Tensor, per_image: int, ignored: int) -> tuple[Tensor, Tensor]:
    """Vectors of single pixels and their labels, from places spread evenly over each map.

    Args:
        feature: ``[N, C, H, W]``.
        labels: ``[N, h, w]`` at any resolution; read at the nearest pixel.
        per_image: Maximum number of places in each map.
        ignored: Label whose pixels are left out.

    Returns:
        ``[M, C]`` and ``[M]``.

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
