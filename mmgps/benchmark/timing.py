"""Step times of several methods, measured in turns so that a change in the machine's load affects all alike."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mmgps.engine.resuming.seeding import mixed_seed, seed_generators

Step = Callable[[Any], Any]
Clock = Callable[[], float]


def interleaved(
    steps: Mapping[str, Step],
    batches: Sequence[Any],
    rounds: int,
    warmup: int,
    device: str = 'cpu',
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Time each step ``rounds`` times, in seconds.

    In a round each method takes one step on the same batch with the same random state. The order of the methods
    alternates between rounds, so that no method always follows the same other one. Steps may change their batch:
    each gets a copy. Copying and garbage collection are not timed.

    Args:
        steps: Timed functions of a batch, by name.
        batches: Batches, used in turn.
        rounds: Number of timed rounds.
        warmup: Number of untimed rounds before them.
        device: Device of the steps; CUDA is synchronized before and after each step.
        seed: Seed of dropout.
        clock: Returns seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    with _no_collection():
        for number in range(warmup + rounds):
            for name in list(steps)[:: -1 if number % 2 else 1]:
                seed_generators(mixed_seed(seed, number))
                seconds = timed(steps[name], batches[number % len(batches)], device, clock)
                if number >= warmup:
                    times[name].append(seconds)
            gc.collect()
    return times


def timed(step: Step, batch: Any, device: str, clock: Clock) -> float:
    """Time ``step`` on a copy of ``batch``, in seconds."""
    own = copy.deepcopy(batch)
    synchronize(device)
    began = clock()
    step(own)
    synchronize(device)
    return clock() - began


def synchronize(device: str) -> None:
    """Wait for the device."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    gc.collect()
    gc.freeze()  # so that the collections between rounds look at new objects only
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
