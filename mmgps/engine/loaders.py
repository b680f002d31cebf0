"""Data loaders that mmgps derives from the training data loader of a runner."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from .seeding import SeededDataset, SeededSampler, SkippingBatches


def rebuild(loader: DataLoader, **changes: Any) -> DataLoader:
    """A data loader like ``loader`` with another batch sampler or data set.

    It says the same batch size: torch forgets it for a loader with a batch sampler, and hooks such as MMPretrain's
    ``PreciseBNHook`` ask for it.
    """
    kept = ('collate_fn', 'num_workers', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context')
    options = {name: getattr(loader, name) for name in kept}
    if loader.num_workers:
        options.update(prefetch_factor=loader.prefetch_factor, persistent_workers=loader.persistent_workers)
    built = DataLoader(**{**options, 'dataset': loader.dataset, **changes})
    vars(built)['batch_size'] = loader.batch_size  # torch forbids to set it the usual way
    return built


def seeded_loader(loader: DataLoader, seed: int, rank: int) -> DataLoader:
    """``loader`` with samples and augmentation that depend only on the seed and the position.

    Raises:
        TypeError: For an iterable data set or a batch sampler without a sampler, which have no positions.
    """
    batches: Any = loader.batch_sampler
    inner = getattr(batches, 'sampler', None)
    if isinstance(loader.dataset, IterableDataset) or inner is None:
        raise TypeError(
            f'exact resumption needs a data set and a sampler with positions, got {type(loader.dataset).__name__} and '
            f'{type(batches).__name__}; remove mmgps.ExactResumeHook from custom_hooks to train without it'
        )
    seeded: Any = copy.copy(batches)
    seeded.sampler = SeededSampler(inner, seed, rank)
    return rebuild(loader, dataset=SeededDataset(loader.dataset), batch_sampler=SkippingBatches(seeded))


class ResumableIterator:
    """What an iteration-based loop draws from, starting at any iteration without loading what came before.

    Args:
        loader: From :func:`seeded_loader`.
        start: Iterations that were trained before.
        swallowed: How many of the loop's next draws are only meant to skip what was trained before: mmengine before
            OneDL's release draws ``start`` batches and drops them.
    """

    def __init__(self, loader: DataLoader, start: int, swallowed: int) -> None:
        self._loader, self._swallowed = loader, swallowed
        order: Any = loader.batch_sampler
        self._order = order
        length = start + 1 if order.sampler.infinite else len(loader)
        self._epoch, self._skip = divmod(start, length)
        self._batches: Iterator[Any] = iter(())
        self._opened = False

    def skip_iter(self, num_iters: int) -> None:
        """Nothing: the start was given."""

    def __iter__(self) -> ResumableIterator:
        return self

    def __next__(self) -> Any:
        if self._swallowed:
            self._swallowed -= 1
            return None
        if not self._opened:
            self._open()
        try:
            return next(self._batches)
        except StopIteration:
            self._epoch += 1
            self._open()
            return next(self._batches)

    def _open(self) -> None:
        self._opened = True
        self._order.sampler.set_epoch(self._epoch)
        self._order.skip, self._skip = self._skip, 0
        self._batches = iter(self._loader)
