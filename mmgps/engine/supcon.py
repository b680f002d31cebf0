"""Select by the supervised contrastive loss of the backbone's own features."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmgps.registry import EMBEDDINGS, SELECTION_LOSSES, VIEW_ORDERS
from mmgps.selection.contrastive import TEMPERATURE, supervised_contrastive

from .seeding import Draws
from .selection_batches import SelectionBatches, divide, samples_of
from .selection_loss import norms_over_batch
from .views import VIEWS, Share, view_batches


@SELECTION_LOSSES.register_module()
class SupConLoss:
    """SupCon on the feature of two augmented views of each image: the paper's loss for classification, section 3.1.

    The head is not run, so an untrained one does not shape the choice. Mixup and the like of the data preprocessor do
    not apply. A term compares the images of one batch, and the sum weighs a batch by its images: so the selection
    depends on the batch size, but not on the number of processes, which share whole batches and gather no features.

    Args:
        temperature: Of the loss.
        pipeline: Transforms of a view, from the loading of the image to packing; None for those of the training set,
            which then have to be random.
        order: Config of the order in which images are drawn.
        embedding: Config of what is compared.
        batch_size: Images of a batch; None for that of the training data loader.

    Raises:
        ValueError: For a temperature that is not above 0, or a batch size below 2, in which nothing is compared.
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
            raise ValueError(f'temperature is to be above 0, such as {TEMPERATURE}, got {temperature!r}')
        if batch_size is not None and batch_size < 2:
            raise ValueError(f'batch_size is to be at least 2, since images are compared, got {batch_size!r}')
        self.temperature, self.pipeline, self.batch_size = temperature, pipeline, batch_size
        self.order = VIEW_ORDERS.build({'_scope_': 'mmgps', 'type': 'ShuffledOrder', **(order or {})})
        self.embedding = EMBEDDINGS.build({'_scope_': 'mmgps', 'type': 'ImageEmbedding', **(embedding or {})})

    def batches(
        self, loader: DataLoader, num_batches: int | None, seed: int, rank: int, world_size: int
    ) -> SelectionBatches:
        """See :class:`mmgps.engine.selection_loss.SelectionLoss`."""
        if num_batches is not None and num_batches < 1:
            raise ValueError(f'num_batches must be at least 1, or None for all data, got {num_batches}')
        indices = self.order.indices(loader.dataset, seed)
        share = Share(rank, world_size, num_batches)
        return view_batches(loader, indices, seed, share, copy.deepcopy(self.pipeline), self.batch_size)

    def bind(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any], Tensor]:
        """See :class:`mmgps.engine.selection_loss.SelectionLoss`."""

        def loss(batch: Any) -> Tensor:
            data = _preprocessed(model, batch)
            vectors, labels = self._embedded(model, backbone, optim_wrapper, data)
            return supervised_contrastive(vectors, labels, self.temperature) * (samples_of(data) / VIEWS)

        return loss

    def in_parts(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any, int], Iterator[Tensor]]:
        """See :class:`mmgps.engine.micro_batches.DivisibleLoss`.

        The vectors of all parts are made first, without a graph but for the last part. The gradient of the loss in them
        is then handed to the weights part by part, by the product of the two; the vectors of the other parts are made
        anew for it, under the same random numbers.
        """

        def parts(batch: Any, size: int) -> Iterator[Tensor]:
            data = _preprocessed(model, batch)
            pieces, draws, found = list(divide(data, size)), [], []
            for piece in pieces:
                draws.append(Draws(model))
                with torch.set_grad_enabled(piece is pieces[-1]):
                    found.append(self._embedded(model, backbone, optim_wrapper, piece))
            after = Draws(model)
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

    def kept_whole(self, model: Any, backbone: nn.Module) -> str | None:
        """See :class:`mmgps.engine.micro_batches.DivisibleLoss`."""
        return norms_over_batch(backbone)

    def _embedded(self, model: Any, backbone: nn.Module, optim_wrapper: Any, data: Any) -> tuple[Tensor, Tensor]:
        with optim_wrapper.optim_context(model):
            outputs = backbone(data['inputs'])
        return self.embedding(outputs, data['data_samples'])

    def settings(self) -> dict[str, Any]:
        """See :class:`mmgps.engine.selection_loss.SelectionLoss`."""
        told = {
            'type': 'SupConLoss',
            'temperature': self.temperature,
            'pipeline': self.pipeline,
            'batch_size': self.batch_size,
            'order': _described(self.order),
            'embedding': _described(self.embedding),
        }
        return json.loads(json.dumps(told, default=str))


def _product(vectors: Tensor, share: Tensor) -> Tensor:
    return (vectors.to(torch.promote_types(vectors.dtype, torch.float32)) * share).sum()


def _preprocessed(model: Any, batch: Any) -> Any:
    with _unmixed(model.data_preprocessor) as preprocess:
        return preprocess(batch, True)  # as for training, which pads labels with their images


@contextmanager
def _unmixed(preprocessor: Any) -> Iterator[Any]:
    """The data preprocessor without Mixup and the like."""
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
