"""The checkpoints of a run.

Each appears completely or not at all, holds no NaN, and consists of tensors and plain values. A run resumes from the
one that ``last_checkpoint`` in its work dir names.
"""

from __future__ import annotations

import functools
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine._strategy import FSDPStrategy, SingleDeviceStrategy
from mmengine.dist import gather_object, get_rank, get_world_size, is_main_process
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmgps.utils.atomic_file import atomic_file

from ..optim import wrappers_of
from ..tuned_backbone import unwrapped

HISTORY_KEY = 'mmgps_history'
GRADIENTS_KEY = 'mmgps_gradients'
NOTE = 'last_checkpoint'
BEST = re.compile(r'(best_.+)_(?:epoch|iter)_\d+(\.\w+)')


Gradients = list[Tensor | None]


class DivergedError(ArithmeticError):
    """Training has produced parameters that are NaN or infinite."""


class LastCheckpointError(ValueError):
    """``last_checkpoint`` points to no complete file."""


def save_atomically(runner: Runner) -> None:
    """Make ``runner`` write each checkpoint to a temporary file, which is renamed when it is complete.

    Strategies of a ``FlexibleRunner`` that save folders, one part per process, are left as they are.
    """
    strategy = getattr(runner, 'strategy', None)
    in_parts = not isinstance(strategy, SingleDeviceStrategy | None) or isinstance(strategy, FSDPStrategy)
    if not in_parts and 'save_checkpoint' not in vars(runner):
        vars(runner)['save_checkpoint'] = _atomically(runner.save_checkpoint)


def _atomically(save: Any) -> Any:
    @functools.wraps(save)
    def save_checkpoint(out_dir: str, filename: str, *args: Any, **options: Any) -> None:
        if '://' in out_dir or not is_main_process():
            return save(out_dir, filename, *args, **options)
        target = Path(out_dir) / filename
        for left in target.parent.glob('.*.pth.part'):  # by a killed run, since this one holds the lock of the folder
            left.unlink()
        try:
            with atomic_file(target, alone=True) as partial:
                save(str(target.parent), partial.name, *args, **options)
        except OSError as error:
            raise OSError(
                error.errno,
                f'{error.strerror or error}; the checkpoint before it is untouched, so fix the cause and continue with '
                '--resume',
            ) from error

    return save_checkpoint


def check_loss(runner: Runner, outputs: Any) -> None:
    """Stop a run whose loss and parameters are NaN or infinite; the loss scaler skips harmless steps.

    Raises:
        DivergedError: Names the loss and a parameter.
    """
    loss = outputs.get('loss') if isinstance(outputs, dict) else None
    if loss is not None and not math.isfinite(value := float(torch.as_tensor(loss).detach())):
        check_finite(runner, f'the loss is {value} in iteration {runner.iter + 1} and ')


def check_finite(runner: Runner, cause: str = '', kind: str = 'checkpoint') -> None:
    """Stop a diverged run before it replaces its last good file of ``kind``; the message starts with ``cause``.

    Raises:
        DivergedError: If a parameter holds NaN or infinity, or a buffer holds NaN, such as the statistics of a norm;
            names the first.
    """
    model = unwrapped(runner.model)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    bad = [name for name, value in parameters.items() if not torch.isfinite(value).all()]
    found = f'{len(bad)} of {len(parameters)} parameters hold NaN or infinity'
    if not bad:  # a buffer may hold infinity, such as the mask of an attention
        bad = [name for name, value in buffers.items() if torch.isnan(value).any()]
        found = f'{len(bad)} of {len(buffers)} buffers hold NaN'
    if bad:
        raise DivergedError(
            f'{cause}{found}, first {bad[0]!r}: training has diverged. No {kind} of it is written; lower the learning '
            'rate or set clip_grad of optim_wrapper, and continue from the last checkpoint with --resume, or start anew'
        )


def pack_history(checkpoint: dict[str, Any]) -> None:
    """Replace every ``HistoryBuffer`` of the message hub by its values and counts, and NumPy numbers by Python numbers.

    torch since 2.6 refuses to load these objects, so mmengine 0.10.7 cannot resume from its own checkpoints. It can
    resume from the result, even without mmgps, and then skips the logged values. Packing twice equals packing once.

    States of schedulers lose their functions, such as that of ``OneCycleLR``, which its constructor creates again.
    """
    checkpoint['message_hub'] = map_parts(checkpoint['message_hub'], _plain_log)
    if 'param_schedulers' in checkpoint:
        checkpoint['param_schedulers'] = _without_functions(checkpoint['param_schedulers'])


def unpack_history(checkpoint: dict[str, Any]) -> None:
    """Invert :func:`pack_history`; leaves other values alone."""
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, packed in scalars.items():
        if isinstance(packed, dict) and HISTORY_KEY in packed:
            scalars[name] = HistoryBuffer(*packed[HISTORY_KEY])


def _without_functions(states: Any) -> Any:
    """Copy states of schedulers, a list or one list for each optimizer, without callables."""
    if isinstance(states, dict):
        return {name: _without_functions(part) for name, part in states.items()}
    return [{name: value for name, value in state.items() if not callable(value)} for state in states]


def _plain_log(value: Any) -> Any:
    if isinstance(value, HistoryBuffer):
        return {HISTORY_KEY: [values.tolist() for values in value.data]}
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def map_parts(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Copy nested dicts, lists and tuples, and convert everything else in them."""
    if isinstance(value, dict):
        return {map_parts(key, convert): map_parts(part, convert) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_parts(part, convert) for part in value)
    return convert(value)


def check_last_checkpoint(work_dir: str | Path) -> None:
    """Check that a run can resume from the file that ``last_checkpoint`` names; without that note it starts anew.

    Nothing is loaded: a checkpoint is a zip archive, whose directory is at its end.

    Raises:
        LastCheckpointError: If the file is missing or damaged; names the newest complete checkpoint instead.
    """
    note = Path(work_dir) / NOTE
    if not note.is_file():
        return
    wrong = _wrong(note.read_text().strip())
    if wrong:
        raise LastCheckpointError(f'cannot resume: {note} {wrong}; {_advice(Path(work_dir))}')


def resumed(runner: Runner) -> bool:
    """Return True if the run continues from a checkpoint; ``resume`` without any checkpoint starts anew."""
    return runner._resume and runner._has_loaded


def is_training(runner: Runner) -> bool:
    """Return True if ``runner`` loads for training; for a validation or a test it builds no optimizer."""
    return isinstance(runner.optim_wrapper, OptimWrapper)


def is_complete(path: Path) -> bool:
    """Return True if a checkpoint was written to its end; folders, which some strategies write, are not checked."""
    return path.is_dir() or zipfile.is_zipfile(path)


def remove_other_best(folder: Path, best: str) -> None:
    """Remove the files that a killed run left in ``folder`` although it had written ``best_SCORE_iter_200.pth``."""
    named = BEST.fullmatch(best)
    for path in folder.glob('best_*'):
        found = BEST.fullmatch(path.name)
        if named and found and path.is_file() and path.name != best and found.groups() == named.groups():
            path.unlink()


def _wrong(name: str) -> str:
    if not name:
        return 'is empty'
    if '://' in name or (Path(name).exists() and is_complete(Path(name))):
        return ''
    return f'names {name}, which is ' + ('damaged: its end is missing' if Path(name).exists() else 'not there')


def _advice(work_dir: Path) -> str:
    found = [path for path in work_dir.glob('*.pth') if path.is_file() and is_complete(path)]
    found.sort(key=lambda path: path.stat().st_mtime)
    if not found:
        return f'the folder has no complete checkpoint; delete {NOTE} to start anew'
    return f'the newest complete checkpoint of the folder is {found[-1]}: continue with --resume {found[-1]}'


@contextmanager
def gathered_gradients(runner: Runner) -> Iterator[None]:
    """Context in which checkpoints hold the gradients of all processes; every process must enter it."""
    if _is_pending(runner) and get_world_size() > 1:
        vars(runner)[GRADIENTS_KEY] = gather_object(_summed(runner))
    try:
        yield
    finally:
        vars(runner).pop(GRADIENTS_KEY, None)


def pack_gradients(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Add the gradients that no step has used yet to ``checkpoint``, as a list for each process.

    Outside of :func:`gathered_gradients` a process has only its own gradients. With several processes a checkpoint then
    holds none, and a warning says so.
    """
    if 'optimizer' not in checkpoint or not _is_pending(runner):
        return
    if get_world_size() > 1 and GRADIENTS_KEY not in vars(runner):
        runner.logger.warning(
            'this checkpoint is within an accumulation, and lacks the gradients that each process has summed so far: a '
            "run resumed from it will differ from this one; let mmengine's CheckpointHook write it, or "
            'write it after a multiple of accumulative_counts iterations'
        )
        return
    checkpoint[GRADIENTS_KEY] = vars(runner).get(GRADIENTS_KEY) or [_summed(runner)]


def restore_gradients(runner: Runner, found: Sequence[Gradients]) -> None:
    """Restore the gradients of :func:`pack_gradients`, once the optimizers hold the trained parameters.

    If the number of processes has changed, each process gets the mean of all.
    """
    own = found[get_rank()] if len(found) == get_world_size() else [_mean(parts) for parts in zip(*found, strict=True)]
    for value, gradient in zip(_held(runner), own, strict=True):
        value.grad = None if gradient is None else gradient.to(value.device)


def _mean(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.stack(present).sum(0) / len(parts) if present else None


def _is_pending(runner: Runner) -> bool:
    return any(
        getattr(wrapper, '_inner_count', 0) % getattr(wrapper, '_accumulative_counts', 1) != 0
        for wrapper in wrappers_of(runner.optim_wrapper)
    )


def _summed(runner: Runner) -> Gradients:
    return [None if value.grad is None else value.grad.detach().cpu() for value in _held(runner)]


def _held(runner: Runner) -> list[nn.Parameter]:
    groups = [group for wrapper in wrappers_of(runner.optim_wrapper) for group in wrapper.optimizer.param_groups]
    return [value for group in groups for value in group['params']]
