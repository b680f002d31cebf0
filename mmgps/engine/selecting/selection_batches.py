"""Batches of a selection pass: every sample once, and equally many batches on every process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from mmengine.dataset import RepeatDataset
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..resuming.loaders import rebuild
from ..resuming.seeding import SeededDataset, SeededIndex, mixed_seed

T = TypeVar('T')


@dataclass(frozen=True)
class SelectionBatches:
    """Batches with the weight of their loss: 1, or 0 for batches that only pad this process to the others.

    A synchronized norm waits for all processes in each batch, so all need equally many.

    Args:
        loader: Data loader of this process.
        counted: Number of batches that count; they come first.
    """

    loader: DataLoader
    counted: int

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        for at, batch in enumerate(self.loader):
            yield batch, float(at < self.counted)


def selection_batches(
    loader: DataLoader, num_batches: int | None, seed: int, rank: int = 0, world_size: int = 1
) -> SelectionBatches:
    """Make the batches of one pass over the training data, without touching ``loader`` and its sampler.

    The seed determines the order, and seed and sample determine the augmentation, so the pass sees the same images
    for any number of processes or workers.

    Args:
        loader: Training data loader; its batch size, workers and pipeline are used.
        num_batches: Batches of each process; None for all data.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes that share the data.

    Raises:
        ValueError, TypeError: See :func:`check_pass`.
    """
    check_pass(loader, num_batches)
    size = batch_size_of(loader)
    order = torch.randperm(distinct(loader.dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    shares = [order[at::world_size] for at in range(world_size)]
    if num_batches is not None:
        shares = [share[: num_batches * size] for share in shares]
    draws = [[SeededIndex(index, mixed_seed(seed, index)) for index in share] for share in shares]
    return padded(loader, [cut(share, size) for share in draws], rank, seed, dataset=SeededDataset(loader.dataset))


def check_pass(loader: DataLoader, num_batches: int | None) -> None:
    """Check that a pass over the data of ``loader`` has an end, and at least one batch.

    Raises:
        ValueError: For a ``num_batches`` below 1.
        TypeError: For an iterable data set.
    """
    if num_batches is not None and num_batches < 1:
        raise ValueError(f'num_batches must be at least 1, or None for all data, got {num_batches}')
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(f'the selection pass needs a data set with a length, got {type(loader.dataset).__name__}')


def padded(
    loader: DataLoader, batches: Sequence[list[list[SeededIndex]]], rank: int, seed: int, **changes: Any
) -> SelectionBatches:
    """Make the batches of process ``rank``, padded to the largest number of any process.

    Args:
        loader: Training data loader, which stays untouched.
        batches: Indices of the samples of each batch, for each process.
        rank: Rank of this process.
        seed: Seed of the run.
        changes: Replacements for arguments of ``loader``, such as its data set.
    """
    mine, counted = pad_to_equal(batches, rank)
    changes.update(batch_sampler=mine, generator=torch.Generator().manual_seed(seed))
    if loader.num_workers:
        changes['persistent_workers'] = False
    return SelectionBatches(rebuild(loader, **changes), counted)


def batch_size_of(loader: DataLoader) -> int:
    """Return the number of samples in a batch of ``loader``."""
    batches: Any = loader.batch_sampler
    return int(getattr(batches, 'batch_size', loader.batch_size) or 1)


def distinct(dataset: Any) -> int:
    """Count the samples of ``dataset``; those of a ``RepeatDataset`` count once and come first."""
    return distinct(dataset.dataset) if isinstance(dataset, RepeatDataset) else len(dataset)


def pad_to_equal(batches: Sequence[list[list[T]]], rank: int) -> tuple[list[list[T]], int]:
    """Pad the batches of process ``rank`` to the largest number of any process; also return the number that counts.

    A process with fewer batches repeats its first one; a process without samples repeats the first of process 0.
    """
    mine = batches[rank]
    repeated = (mine or batches[0])[:1]
    return mine + repeated * (max(map(len, batches)) - len(mine)), len(mine)


def cut(samples: Sequence[T], size: int) -> list[list[T]]:
    """Cut ``samples`` into batches of ``size``; a single last sample joins the batch before, for BN and comparisons."""
    batches = [list(samples[at : at + size]) for at in range(0, len(samples), size)]
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        lone = batches.pop()
        batches[-1] += lone
    return batches


def samples_of(batch: Any) -> int:
    """Count the images in ``batch``; inputs of a model that compares views are a list of views, not of images."""
    given = batch if isinstance(batch, Mapping) else {}
    labelled = given.get('data_samples')
    return len(given.get('inputs', batch) if labelled is None else labelled)


def divide(batch: Any, size: int) -> Iterator[Any]:
    """Divide a batch of an mm library, collated or preprocessed, into parts of ``size`` images.

    Raises:
        TypeError: For a batch of another form.
    """
    images = samples_of(batch)
    for start in range(0, images, size):
        yield _sliced(batch, images, slice(start, start + size))


def _sliced(part: Any, images: int, which: slice) -> Any:
    if isinstance(part, Mapping):
        return {name: _sliced(value, images, which) for name, value in part.items()}
    if part is None:
        return None
    if isinstance(part, Tensor | Sequence) and len(part) == images:
        return part[which]
    raise TypeError(
        f'a batch of {images} images holds a {type(part).__name__} that is not of this length, so it cannot be '
        'divided; leave micro_batches out of the hook'
    )
