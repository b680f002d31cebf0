"""Two augmented views of each image, and the samplers that decide which images form a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from mmengine.dataset import Compose

from mmgps.registry import VIEW_ORDERS

from ..resuming.seeding import SeededIndex, mixed_seed, seeded
from .selection_batches import distinct

VIEWS = 2


class TwoViews:
    """A data set whose items are lists of two views of an image, each augmented by its own seed.

    Args:
        dataset: Data set of mmengine, or a wrapper around one.
        pipeline: Configs of transforms; None for those of ``dataset``.

    Raises:
        TypeError: For a pipeline, if the data set has no ``get_data_info`` to start it from.
    """

    def __init__(self, dataset: Any, pipeline: Sequence[Any] | None) -> None:
        self._dataset = dataset
        self._compose = None if pipeline is None else Compose(list(pipeline))
        if self._compose and not hasattr(dataset, 'get_data_info'):
            raise TypeError(
                f'{type(dataset).__name__} has no get_data_info, which a pipeline for views starts from; leave out '
                'pipeline of mmgps.SupConLoss to use that of the training set'
            )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: SeededIndex) -> list[Any]:
        return [self._view(index, mixed_seed(index.seed, number)) for number in range(VIEWS)]

    def _view(self, index: int, seed: int) -> Any:
        with seeded(seed):
            if self._compose is None:
                return self._dataset[int(index)]
            return self._compose(self._dataset.get_data_info(int(index)))


def side_by_side(collate: Callable[[list[Any]], Any], items: list[list[Any]]) -> Any:
    """Collate lists of views by ``collate`` as if each view were an image."""
    return collate([view for views in items for view in views])


class ViewOrder(Protocol):
    """Sampler that orders the images of a contrastive selection."""

    def indices(self, dataset: Any, seed: int) -> list[int]:
        """Positions in ``dataset``, in the order in which they are cut into batches."""
        ...


@VIEW_ORDERS.register_module()
class ShuffledSampler:
    """Every image once, shuffled by the seed."""

    def indices(self, dataset: Any, seed: int) -> list[int]:
        return np.random.default_rng(seed).permutation(distinct(dataset)).tolist()


@VIEW_ORDERS.register_module()
class ClassBalancedSampler:
    """Every class as often as the largest one, several images of a class at a time.

    The images of a class are shuffled again whenever all of them were drawn. So small classes weigh as much as large
    ones, and a batch holds several images of a class, which is rare otherwise with many classes and small batches.

    Args:
        images_per_class: Number of consecutive images of a class. Choose a divisor of the batch size.

    Raises:
        ValueError: For ``images_per_class`` below 1.
    """

    def __init__(self, images_per_class: int = 4) -> None:
        if images_per_class < 1:
            raise ValueError(f'images_per_class must be at least 1, got {images_per_class!r}')
        self.images_per_class = images_per_class

    def indices(self, dataset: Any, seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        members: dict[int, list[int]] = defaultdict(list)
        for at in range(distinct(dataset)):
            members[class_of(dataset, at)].append(at)
        size = self.images_per_class
        rounds = -(-max(map(len, members.values()), default=0) // size)
        drawn = [_drawn(members[label], rounds * size, rng) for label in sorted(members)]
        groups = [own[at : at + size] for own in drawn for at in range(0, len(own), size)]
        return [index for group in rng.permutation(len(groups)) for index in groups[group]]


def class_of(dataset: Any, at: int) -> int:
    """Look up the class of image ``at`` without loading the image.

    Raises:
        TypeError: For a data set without classes of images.
    """
    try:
        categories = getattr(dataset, 'get_cat_ids', None)
        found = None if categories is None else categories(at)
    except NotImplementedError:  # from mmengine's base class, for sets without classes of images
        found = None
    if found is None:
        raise TypeError(
            f'{type(dataset).__name__} has no classes of images (get_cat_ids), so they cannot be '
            "balanced; use order=dict(type='mmgps.ShuffledSampler')"
        )
    return int(found[0])


def _drawn(own: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """Draw ``count`` of the images ``own``, repeating one only after all others."""
    times = -(-count // len(own))
    return np.concatenate([rng.permutation(own) for _ in range(times)])[:count].tolist()
