"""Choosing by several processes: each brings its own batches, and all train the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from mmgps.selection import Selection

Result = TypeVar('Result')


class OtherProcessError(RuntimeError):
    """Another process of the run failed, and this one would wait for it for ever."""


def in_processes() -> bool:
    """True if this is one of several processes of a distributed run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def on_all_processes(work: Callable[[], Result]) -> Result:
    """Do ``work``, which waits for nobody, on every process.

    Raises:
        OtherProcessError: If it failed on another process, which raises the error itself.
    """
    if not in_processes():
        return work()
    result: list[Result] = []
    failure = None
    try:
        result.append(work())
    except Exception as error:
        failure = error
    causes: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(causes, None if failure is None else f'{type(failure).__name__}: {failure}')
    if failure is not None:
        raise failure
    for rank, cause in enumerate(causes):
        if cause is not None:
            raise OtherProcessError(f'choosing what is trained failed on process {rank}: {cause}')
    return result[0]


def sum_over_processes(gradients: Mapping[str, Tensor]) -> None:
    """Add up the gradients of all processes, in place."""
    if in_processes():
        for value in gradients.values():
            dist.all_reduce(value)


def selection_of_all(made: Selection) -> Selection:
    """The selection of the first process, which all of them train."""
    if not in_processes():
        return made
    shared: list[Selection] = [made]
    dist.broadcast_object_list(shared)
    return shared[0]


def check_same(selection: Selection) -> None:
    """Make sure that all processes have the same ``selection``.

    Raises:
        ValueError: If this one has another than the first.
        OtherProcessError: If another one has.
    """
    first = selection_of_all(selection)

    def compare() -> None:
        if not selection.equals(first):
            raise ValueError('selection is another one than that of the first process; pass the same to all of them')

    on_all_processes(compare)
