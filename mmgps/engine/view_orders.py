"""In which order a contrastive selection draws images, so which of them meet in a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mmgps.registry import VIEW_ORDERS

from .selection_batches import distinct


class ViewOrder(Protocol):
    """An order of drawing."""

    def indices(self, dataset: Any, seed: int) -> list[int]:
        """Positions in ``dataset``, in the order in which they are cut into batches."""
        ...


@VIEW_ORDERS.register_module()
class ShuffledOrder:
    """Every image once, shuffled by the seed."""

    def indices(self, dataset: Any, seed: int) -> list[int]:
        return np.random.default_rng(seed).permutation(distinct(dataset)).tolist()


@VIEW_ORDERS.register_module()
class ClassBalancedOrder:
    """Every class as often as the largest one, several images of a class at a time.

    The images of a class are shuffled again each time they are used up. So small classes weigh what large ones do, and
    a batch holds other images of the same class, where with many classes and small batches it would hardly ever.

    Args:
        images_per_class: Images of a class that stand side by side. Choose a divisor of the batch size.

    Raises:
        ValueError: For ``images_per_class`` below 1.
    """

    def __init__(self, images_per_class: int = 4) -> None:
        if images_per_class < 1:
            raise ValueError(f'images_per_class is to be at least 1, got {images_per_class!r}')
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
    """The class of image ``at``, without loading it.

    Raises:
        TypeError: For a data set that cannot say.
    """
    try:
        categories = getattr(dataset, 'get_cat_ids', None)
        found = None if categories is None else categories(at)
    except NotImplementedError:  # by mmengine's base class, for sets that have no classes of images
        found = None
    if found is None:
        raise TypeError(
            f'{type(dataset).__name__} does not say which class an image has (get_cat_ids), so classes cannot be '
            "balanced; use order=dict(type='mmgps.ShuffledOrder')"
        )
    return int(found[0])


def _drawn(own: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """``count`` of the images ``own``, each again only after all others."""
    times = -(-count // len(own))
    return np.concatenate([rng.permutation(own) for _ in range(times)])[:count].tolist()
