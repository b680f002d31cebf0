"""Data loaders that mmgps derives from the training data loader of a runner."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from .seeding import SeededDataset, SeededIndex, SeededSampler, SkippingBatches, mixed_seed


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


def selection_loader(
    loader: DataLoader, num_batches: int | None, seed: int, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """A loader for one pass over the training data that leaves ``loader`` and its sampler untouched.

    The order is a permutation by the seed, the augmentation of a sample is a function of the seed and the sample: so
    the pass sees the same pictures whatever the number of processes or workers.

    Args:
        loader: The training data loader; its batch size, workers and pipeline are used.
        num_batches: Batches of each process; None for all data.

    Raises:
        ValueError: For a ``num_batches`` below 1.
        TypeError: For an iterable data set.
    """
    if num_batches is not None and num_batches < 1:
        raise ValueError(f'num_batches must be at least 1, or None for all data, got {num_batches}')
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(f'the selection pass needs a data set with a length, got {type(loader.dataset).__name__}')
    batches: Any = loader.batch_sampler
    size = int(getattr(batches, 'batch_size', loader.batch_size) or 1)
    data = SeededDataset(loader.dataset)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    mine = order[rank::world_size]
    if num_batches is not None:
        mine = mine[: num_batches * size]
    indices = [SeededIndex(index, mixed_seed(seed, index)) for index in mine]
    return rebuild(
        loader,
        dataset=data,
        batch_sampler=_batches(indices, size),
        generator=torch.Generator().manual_seed(seed),
        **(dict(persistent_workers=False) if loader.num_workers else {}),
    )


def _batches(indices: Sequence[SeededIndex], size: int) -> list[list[SeededIndex]]:
    """Batches of ``size``; a lone last sample joins the batch before, since BN cannot train on one sample."""
    batches = [list(indices[at : at + size]) for at in range(0, len(indices), size)]
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        lone = batches.pop()
        batches[-1] += lone
    return batches
