"""Select by the supervised contrastive loss of the backbone's own features, of images or of pixels."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmgps.registry import EMBEDDINGS, SELECTION_LOSSES, VIEW_ORDERS
from mmgps.selection.contrastive import TEMPERATURE, last_feature, pooled, spread_pixels, supervised_contrastive

from ..resuming.seeding import RandomSnapshot, SeededIndex, mixed_seed
from .selection_batches import (
    VIEWS,
    SelectionBatches,
    TwoViews,
    batch_size_of,
    check_pass,
    cut,
    divide,
    padded,
    samples_of,
    side_by_side,
)
from .selection_loss import norms_over_batch


@SELECTION_LOSSES.register_module()
class SupConLoss:
    """SupCon on the features of two augmented views of each image: the paper's loss for classification, section 3.1.

    The head does not run, so an untrained head does not influence the selection. Mixup and similar augmentations of the
    data preprocessor are switched off. Each term compares the images of one batch, and the sum weights a batch by its
    images: so the selection depends on the batch size but not on the number of processes, which share full batches and
    gather no features.

    Args:
        temperature: Temperature of the loss.
        pipeline: Transforms of a view, from loading the image to packing; None for those of the training set, which
            then must be random.
        order: Config of the sampler that orders the images.
        embedding: Config of the embedding to compare.
        batch_size: Images per batch; None for the batch size of the training data loader.

    Raises:
        ValueError: For a temperature of 0 or below, or a batch size below 2, which compares nothing.
    """

    def __init__(
        self,
        temperature: float = TEMPERATURE,
        pipeline: Sequence[Mapping[str, Any]] | None = None,
        order: Mapping[str, Any] | None = None,
        embedding: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f'temperature must be above 0, such as {TEMPERATURE}, got {temperature!r}')
        if batch_size is not None and batch_size < 2:
            raise ValueError(f'batch_size must be at least 2, since the loss compares images, got {batch_size!r}')
        self.temperature, self.pipeline, self.batch_size = temperature, pipeline, batch_size
        self.order = VIEW_ORDERS.build({'_scope_': 'mmgps', 'type': 'ShuffledSampler', **(order or {})})
        self.embedding = EMBEDDINGS.build({'_scope_': 'mmgps', 'type': 'ImageEmbedding', **(embedding or {})})

    def batches(
        self, loader: DataLoader, num_batches: int | None, seed: int, rank: int, world_size: int
    ) -> SelectionBatches:
        """Make the batches of views of one pass, see :class:`mmgps.engine.selecting.selection_loss.SelectionLoss`.

        The loss compares the images of a batch, so batches must not depend on the number of processes: each process
        takes every ``world_size``-th batch. Seed and position in the order determine the augmentation of a view.
        """
        check_pass(loader, num_batches)
        indices = self.order.indices(loader.dataset, seed)
        draws = [SeededIndex(index, mixed_seed(seed, place, index)) for place, index in enumerate(indices)]
        batches = cut(draws, self.batch_size or batch_size_of(loader))
        shares = [batches[at::world_size][:num_batches] for at in range(world_size)]
        views = TwoViews(loader.dataset, copy.deepcopy(self.pipeline))
        return padded(loader, shares, rank, seed, dataset=views, collate_fn=partial(side_by_side, loader.collate_fn))

    def bind(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any], Tensor]:
        """See :class:`mmgps.engine.selecting.selection_loss.SelectionLoss`."""

        def loss(batch: Any) -> Tensor:
            data = _preprocessed(model, batch)
            vectors, labels = self._embedded(model, backbone, optim_wrapper, data)
            return supervised_contrastive(vectors, labels, self.temperature) * (samples_of(data) / VIEWS)

        return loss

    def in_parts(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any, int], Iterator[Tensor]]:
        """See :class:`mmgps.engine.selecting.micro_batches.DivisibleLoss`.

        First the vectors of all parts are computed, with a graph for the last part only. Then the gradient of the loss
        with respect to them reaches the weights part by part, through the product of the two. For this the vectors of
        the other parts are computed again, under the same random numbers.
        """

        def parts(batch: Any, size: int) -> Iterator[Tensor]:
            data = _preprocessed(model, batch)
            pieces, draws, found = list(divide(data, size)), [], []
            for piece in pieces:
                draws.append(RandomSnapshot(model))
                with torch.set_grad_enabled(piece is pieces[-1]):
                    found.append(self._embedded(model, backbone, optim_wrapper, piece))
            after = RandomSnapshot(model)
            last, _ = found[-1]
            vectors = torch.cat([own.detach() for own, _ in found]).requires_grad_()
            loss = supervised_contrastive(vectors, torch.cat([own for _, own in found]), self.temperature)
            (gradient,) = torch.autograd.grad(loss * (samples_of(data) / VIEWS), vectors)
            *shares, share = gradient.split([len(own) for own, _ in found])
            del found
            yield _product(last, share)
            del last
            for piece, draw, share in zip(pieces, draws, shares, strict=False):
                draw.restore()
                yield _product(self._embedded(model, backbone, optim_wrapper, piece)[0], share)
            after.restore()

        return parts

    def undivided_reason(self, model: Any, backbone: nn.Module) -> str | None:
        """See :class:`mmgps.engine.selecting.micro_batches.DivisibleLoss`."""
        return norms_over_batch(backbone)

    def _embedded(self, model: Any, backbone: nn.Module, optim_wrapper: Any, data: Any) -> tuple[Tensor, Tensor]:
        with optim_wrapper.optim_context(model):
            outputs = backbone(data['inputs'])
        return self.embedding(outputs, data['data_samples'])

    def settings(self) -> dict[str, Any]:
        """See :class:`mmgps.engine.selecting.selection_loss.SelectionLoss`."""
        settings = {
            'type': 'SupConLoss',
            'temperature': self.temperature,
            'pipeline': self.pipeline,
            'batch_size': self.batch_size,
            'order': _described(self.order),
            'embedding': _described(self.embedding),
        }
        return json.loads(json.dumps(settings, default=str))


def _product(vectors: Tensor, share: Tensor) -> Tensor:
    return (vectors.to(torch.promote_types(vectors.dtype, torch.float32)) * share).sum()


def _preprocessed(model: Any, batch: Any) -> Any:
    with _unmixed(model.data_preprocessor) as preprocess:
        return preprocess(batch, True)  # as for training, which pads labels with their images


@contextmanager
def _unmixed(preprocessor: Any) -> Iterator[Any]:
    """Context in which the data preprocessor applies no Mixup or similar augmentation."""
    augments = getattr(preprocessor, 'batch_augments', None)
    if augments is None:
        yield preprocessor
        return
    preprocessor.batch_augments = None
    try:
        yield preprocessor
    finally:
        preprocessor.batch_augments = augments


def _described(component: Any) -> dict[str, Any]:
    return {'type': type(component).__name__, **vars(component)}


class Embedding(Protocol):
    """Vectors and labels from the output of a backbone."""

    def __call__(self, outputs: Any, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Extract vectors and labels.

        Args:
            outputs: Output of the backbone for ``N`` images.
            samples: Data sample of each image.

        Returns:
            Vectors ``[M, C]`` and labels ``[M]``.
        """
        ...


@EMBEDDINGS.register_module()
class ImageEmbedding:
    """One vector per image, the class token or the average of the last stage, labelled by the class of the image."""

    def __call__(self, outputs: Any, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        feature = pooled(last_feature(outputs))
        return feature, torch.stack([_class_of(sample) for sample in samples]).to(feature.device)


@EMBEDDINGS.register_module()
class PixelEmbedding:
    """Vectors at single positions of the last feature map, labelled by the annotated pixel there.

    Args:
        per_image: Maximum number of positions per image, evenly spread; the loss compares every pair.
        ignored: Label of pixels to leave out.

    Raises:
        ValueError: For ``per_image`` below 1.
    """

    def __init__(self, per_image: int = 64, ignored: int = 255) -> None:
        if per_image < 1:
            raise ValueError(f'per_image counts positions of an image and must be at least 1, got {per_image!r}')
        self.per_image, self.ignored = per_image, ignored

    def __call__(self, outputs: Any, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        labels = torch.cat([_required(sample, 'gt_sem_seg').data for sample in samples])
        feature = last_feature(outputs)
        return spread_pixels(feature, labels.to(feature.device), self.per_image, self.ignored)


def _class_of(sample: Any) -> Tensor:
    label = _required(sample, 'gt_label')
    if label.numel() != 1:
        raise ValueError(
            f'a contrastive selection needs one class for each image, got {label.tolist()}; for images with several '
            "classes select by loss=dict(type='mmgps.TaskLoss')"
        )
    return label.flatten()[0]


def _required(sample: Any, name: str) -> Any:
    if name not in sample:
        raise ValueError(
            f'the data samples of the training set have no {name}, only {sorted(sample.keys())}; images with a class '
            "need embedding=dict(type='mmgps.ImageEmbedding'), images with a segmentation 'mmgps.PixelEmbedding'"
        )
    return getattr(sample, name)
