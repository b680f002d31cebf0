"""Batches of two augmented views of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dataset import Compose
from torch.utils.data import DataLoader, IterableDataset

from .loaders import rebuild
from .seeding import SeededIndex, mixed_seed, seeded
from .selection_batches import SelectionBatches, in_step

VIEWS = 2


class TwoViews:
    """A data set whose every item is a list of two views of an image, augmented by seeds of their own.

    Args:
        dataset: One of mmengine, or a wrapper around one.
        pipeline: Configs of transforms; None for those of ``dataset``.

    Raises:
        TypeError: For a pipeline with a data set that does not give out what it is to start from.
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


class SideBySide:
    """Collates lists of views as if each view were an image of its own.

    Args:
        collate: Of the training data loader.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: list[list[Any]]) -> Any:
        return self._collate([view for views in items for view in views])


@dataclass(frozen=True)
class Share:
    """The part of a process in a pass.

    Args:
        rank: Of the process.
        world_size: Processes that take turns.
        most: Batches that each takes at most; None for all.
    """

    rank: int = 0
    world_size: int = 1
    most: int | None = None


def view_batches(
    loader: DataLoader,
    indices: Sequence[int],
    seed: int,
    share: Share,
    pipeline: Sequence[Any] | None = None,
    size: int | None = None,
) -> SelectionBatches:
    """Batches of views, cut before they are spread over the processes.

    The loss compares the images of a batch, so which meet in one must not depend on the number of processes: each takes
    every ``world_size``-th batch. The augmentation of a view is a function of the seed and its place in the order.

    Args:
        loader: The training data loader, which stays untouched.
        indices: Images in the order in which they are cut into batches.
        seed: Of the run.
        share: Of this process.
        pipeline: As for :class:`TwoViews`.
        size: Images of a batch, of which each has two views; None for the batch size of ``loader``.

    Raises:
        TypeError: For an iterable data set.
    """
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(f'the selection pass needs a data set with a length, got {type(loader.dataset).__name__}')
    batches: Any = loader.batch_sampler
    size = size or int(getattr(batches, 'batch_size', loader.batch_size) or 1)
    draws: list[int] = [SeededIndex(index, mixed_seed(seed, place, index)) for place, index in enumerate(indices)]
    cut = _cut(draws, size)
    mine, counted = in_step([cut[at :: share.world_size][: share.most] for at in range(share.world_size)], share.rank)
    views = rebuild(
        loader,
        dataset=TwoViews(loader.dataset, pipeline),
        batch_sampler=mine,
        collate_fn=SideBySide(loader.collate_fn),
        generator=torch.Generator().manual_seed(seed),
        **(dict(persistent_workers=False) if loader.num_workers else {}),
    )
    return SelectionBatches(views, counted)


def _cut(draws: list[int], size: int) -> list[list[int]]:
    """Batches of ``size``; a lone last image, which has nothing to be compared with, joins the batch before it."""
    cut = [draws[at : at + size] for at in range(0, len(draws), size)]
    if len(cut) > 1 and len(cut[-1]) == 1 < size:
        cut[-2:] = [cut[-2] + cut[-1]]
    return cut
