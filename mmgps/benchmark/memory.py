"""Memory of a method, and the bytes it exchanges with other processes."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmgps.sparse import saved_bytes

from .recipes import LeftOutError, Recipe, import_peft
from .setup import Rig, Setup

STATUS = Path('/proc/self/status')

Result = TypeVar('Result')


def in_child(what: str, measure: Callable[..., Result], *args: Any) -> Result:
    """Run ``measure(*args)`` in a new process with as many threads as this one.

    Args:
        what: Subject of the measurement, for the error message.
        measure: A module-level function, because the child imports it by name.
        args: Arguments of ``measure``.

    Raises:
        RuntimeError: If ``measure`` raised or the process died; names the cause.
    """
    threads, context = torch.get_num_threads(), multiprocessing.get_context('spawn')
    try:
        with ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) as pool:
            return pool.submit(measure, *args).result()
    except Exception as error:
        raise RuntimeError(f'the process that measures {what} failed: {type(error).__name__}: {error}') from error


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the total size of ``tensors``."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def reduced_bytes(rig: Rig) -> int:
    """Return the bytes of gradients that data-parallel processes exchange per step."""
    return bytes_of(rig.values)


def optimizer_bytes(rig: Rig) -> int:
    """Return the bytes of the optimizer state; 0 before the first step."""
    states = rig.wrapper.optimizer.state.values()
    return bytes_of(value for state in states for value in state.values() if isinstance(value, Tensor))


def activation_bytes(rig: Rig, batch: Any) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, without parameters and buffers."""
    lasting = [*rig.model.parameters(), *rig.model.buffers(), *rig.values]
    return saved_bytes(lambda: rig.loss(copy.deepcopy(batch)), lasting)


def peak_bytes(setup: Setup, recipe: Recipe, batches: Sequence[Any]) -> int:
    """Measure the peak memory of setting up a method and taking a step on each of ``batches``.

    On CUDA this is the peak of the allocator, with the method alone on the device. On the CPU it is the resident set of
    a separate process, which includes the interpreter and all libraries; they are the same for every method.
    """
    if torch.device(setup.device).type == 'cuda':
        return _peak_on_cuda(setup, recipe, batches)
    return in_child('peak memory', _resident, setup, recipe, batches)


def _peak_on_cuda(setup: Setup, recipe: Recipe, batches: Sequence[Any]) -> int:
    gc.collect()  # free the rigs of other methods now, since freeing them later would change the peak
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setup.device)
    before = torch.cuda.memory_allocated(setup.device)
    _steps(setup, recipe, batches)
    return torch.cuda.max_memory_allocated(setup.device) - before


def _resident(setup: Setup, recipe: Recipe, batches: Sequence[Any]) -> int:
    with suppress(LeftOutError):
        import_peft()  # in every child, so that no method alone pays for its size
    _steps(setup, recipe, batches)
    return peak_resident()


def _steps(setup: Setup, recipe: Recipe, batches: Sequence[Any]) -> None:
    rig = Rig(setup, setup.build(), recipe)
    for batch in batches:
        rig.step(copy.deepcopy(batch))


def peak_resident() -> int:
    """Return the peak resident memory of this process in bytes.

    On Linux a child inherits ``ru_maxrss``, so a small child of a large parent would report the parent's peak;
    ``VmHWM`` of proc(5) starts from zero.
    """
    if STATUS.is_file():
        fields = dict(line.split(':', 1) for line in STATUS.read_text().splitlines())
        return int(fields['VmHWM'].split()[0]) * 1024
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
