"""What a contrastive selection compares: images or pixels, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mmgps.registry import EMBEDDINGS
from mmgps.selection.contrastive import last_feature, pooled, spread_pixels


class Embedding(Protocol):
    """Vectors and labels from what a backbone returns."""

    def __call__(self, outputs: Any, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Take them out.

        Args:
            outputs: Of the backbone, for ``N`` images.
            samples: The data sample of each image.

        Returns:
            Vectors ``[M, C]`` and labels ``[M]``.
        """
        ...


@EMBEDDINGS.register_module()
class ImageEmbedding:
    """One vector for each image: class token, or average of the last stage; the label is the class of the image."""

    def __call__(self, outputs: Any, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        feature = pooled(last_feature(outputs))
        return feature, torch.stack([_class_of(sample) for sample in samples]).to(feature.device)


@EMBEDDINGS.register_module()
class PixelEmbedding:
    """Single places of the last map; the label is that of the annotated pixel there.

    Args:
        per_image: At most so many places of each image, spread evenly; the loss compares each with each.
        ignored: Label whose pixels are left out.

    Raises:
        ValueError: For ``per_image`` below 1.
    """

    def __init__(self, per_image: int = 64, ignored: int = 255) -> None:
        if per_image < 1:
            raise ValueError(f'per_image counts places of an image and is to be at least 1, got {per_image!r}')
        self.per_image, self.ignored = per_image, ignored

    def __call__(self, outputs: Any, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        labels = torch.cat([_required(sample, 'gt_sem_seg').data for sample in samples])
        feature = last_feature(outputs)
        return spread_pixels(feature, labels.to(feature.device), self.per_image, self.ignored)


def _class_of(sample: Any) -> Tensor:
    label = _required(sample, 'gt_label')
    if label.numel() != 1:
        raise ValueError(
            f'a contrastive selection needs one class for each image, got {label.tolist()}; select by '
            "loss=dict(type='mmgps.TaskLoss') on images with several"
        )
    return label.flatten()[0]


def _required(sample: Any, name: str) -> Any:
    if name not in sample:
        raise ValueError(
            f'the data samples of the training set have no {name}, only {sorted(sample.keys())}; images with a class '
            "need embedding=dict(type='mmgps.ImageEmbedding'), images with a segmentation 'mmgps.PixelEmbedding'"
        )
    return getattr(sample, name)
