"""Batches of a selection pass: every sample once, or two views of each image, and equally many on every process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from mmengine.dataset import Compose, RepeatDataset
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mmgps.registry import VIEW_ORDERS

from ..resuming.loaders import rebuild
from ..resuming.seeding import SeededDataset, SeededIndex, mixed_seed, seeded

T = TypeVar('T')
VIEWS = 2


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
