"""Data loaders derived from the training data loader of a runner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from torch.utils.data import DataLoader, IterableDataset

from .seeding import SeededBatches, SeededDataset


def rebuild(loader: DataLoader, **changes: Any) -> DataLoader:
    """Copy ``loader`` with another batch sampler or data set.

    The copy keeps ``batch_size``, which torch drops for a loader with a batch sampler and which hooks such as
    MMPretrain's ``PreciseBNHook`` read.
    """
    kept = ('collate_fn', 'num_workers', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context')
    options = {name: getattr(loader, name) for name in kept}
    if loader.num_workers:
        options.update(prefetch_factor=loader.prefetch_factor, persistent_workers=loader.persistent_workers)
    built = DataLoader(**{**options, 'dataset': loader.dataset, **changes})
    vars(built)['batch_size'] = loader.batch_size  # torch forbids to set it the usual way
    return built


def seeded_loader(loader: DataLoader, seed: int, rank: int) -> DataLoader:
    """Copy ``loader`` with samples and augmentation that depend only on the seed and the position.

    Raises:
        TypeError: See :func:`check_positions`.
    """
    batches: Any = loader.batch_sampler
    if isinstance(batches, SeededBatches):
        return loader
    check_positions(loader)
    return rebuild(loader, dataset=SeededDataset(loader.dataset), batch_sampler=SeededBatches(batches, seed, rank))


def check_positions(loader: DataLoader) -> None:
    """Check that the samples of ``loader`` have positions.

    Raises:
        TypeError: For an iterable data set or a batch sampler without a sampler, which have none.
    """
    batches: Any = loader.batch_sampler
    if isinstance(loader.dataset, IterableDataset) or getattr(batches, 'sampler', None) is None:
        raise TypeError(
            f'exact resumption needs a data set and a sampler with positions, got {type(loader.dataset).__name__} and '
            f'{type(batches).__name__}; remove mmgps.ExactResumeHook from custom_hooks to train without it'
        )


def number_of_batches(loader: DataLoader) -> int | None:
    """Batches of an epoch; None if the batch sampler has no length, which loops by iteration allow."""
    try:
        return len(loader)
    except TypeError:
        return None


class NoBatchError(ValueError):
    """The training data do not fill one batch."""


def check_batches(loader: DataLoader) -> None:
    """Check that training has a batch to draw.

    Raises:
        NoBatchError: If an epoch has none; names the number of samples and the size of a batch.
    """
    batches: Any = loader.batch_sampler
    sampler: Any = getattr(batches, 'sampler', loader.sampler)
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset):
        return
    samples, size, world = len(dataset), getattr(batches, 'batch_size', loader.batch_size), get_world_size()
    if samples == 0:
        raise NoBatchError(f'the training set has 0 samples for batches of {size}; check the paths of train_dataloader')
    if not isinstance(sampler, InfiniteSampler) and number_of_batches(loader) == 0:
        share = f', {len(sampler)} of them for each of {world} processes' if world > 1 else ''
        raise NoBatchError(
            f'the training set has {samples} samples{share}, too few for one batch of {size}, and drop_last=True '
            f'leaves out incomplete batches: there is nothing to train on; set batch_size of train_dataloader to at '
            f'most {len(sampler)}, or drop_last=False'
        )


class ResumableIterator:
    """Iterator for an iteration-based loop that starts at any iteration without loading earlier batches.

    Args:
        loader: Result of :func:`seeded_loader`.
        start: Number of iterations that were trained before.
        swallowed: Number of first draws that the loop drops: OpenMMLab's mmengine draws ``start`` batches to skip them.
    """

    def __init__(self, loader: DataLoader, start: int, swallowed: int) -> None:
        self._loader, self._swallowed = loader, swallowed
        order: Any = loader.batch_sampler
        self._order: SeededBatches = order
        self._order.start_after(start)
        self._epoch = self._order.epoch
        self._batches: Iterator[Any] | None = None

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing, since the iterator begins at ``start``."""

    def __iter__(self) -> ResumableIterator:
        return self

    def __next__(self) -> Any:
        if self._swallowed:
            self._swallowed -= 1
            return None
        if self._batches is None:
            self._batches = self._opened()
        try:
            return next(self._batches)
        except StopIteration:
            self._epoch += 1
            self._batches = self._opened()
            return next(self._batches)

    def _opened(self) -> Iterator[Any]:
        self._order.set_epoch(self._epoch)  # mmengine sets another: a loop by iteration stays in epoch 0
        return iter(self._loader)
