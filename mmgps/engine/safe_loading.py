"""Let every library read checkpoints without executing the code in them.

torch reads a checkpoint as tensors and plain values, or executes the code in the file. mmengine's OneDL fork executes
it if plain reading fails, ``torch.hub`` executes whatever it downloads, and torch before 2.6 always executes it. Within
:func:`weights_only`, which all tools and calls of mmgps enter, no code is executed.
"""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import mmengine.runner.checkpoint as mm_checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmgps.utils.atomic_file import atomic_file

DELTA_SUFFIX = '.safetensors'
FORCE, TRUST = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
"""Switches of torch. The second one trusts every file."""
STATISTICS = ('min', 'max', 'current', 'mean')
LOADING = ('_init_model_weights', 'load_or_resume', 'load_checkpoint', 'resume')
"""Methods of a runner that read files."""

_lock, _depth = threading.RLock(), 0


class CheckpointFileError(ValueError):
    """A checkpoint is damaged, or holds more than tensors and plain values."""


def refuse_delta(checkpoint: str, instead: str) -> None:
    """Refuse a delta in place of a checkpoint.

    Args:
        checkpoint: File name.
        instead: Advice on using the checkpoint that base and delta make.

    Raises:
        ValueError: For a delta; tells how to make a checkpoint from it.
    """
    if checkpoint.endswith(DELTA_SUFFIX):
        raise ValueError(
            f'{checkpoint} is a delta, without its base and the state of the optimizer; write base and delta as a '
            f'checkpoint, python tools/delta.py apply CONFIG {checkpoint} whole.pth, and {instead}'
        )


def load_plain(checkpoint: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read the content of a checkpoint on the CPU.

    Raises:
        OSError: If the file cannot be read.
        CheckpointFileError: If it is damaged, or holds objects other than tensors, plain values and mmengine's logs.
    """
    with _naming(os.fspath(checkpoint)), _harmless_globals():
        found = torch.load(checkpoint, map_location='cpu', weights_only=True)
    if not isinstance(found, Mapping):
        raise CheckpointFileError(f'{checkpoint} holds a {type(found).__name__}; expected tensors by name')
    return found


def write_plain(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write ``content`` as a checkpoint, completely or not at all.

    Raises:
        OSError: If it cannot be written, for example to a full disk; names the file.
    """
    with atomic_file(path) as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # from torch, for a full disk
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error


@contextmanager
def weights_only() -> Iterator[None]:
    """Context, or decorator, in which reading a checkpoint executes no code, in any library and in child processes.

    It allows tensors, plain values, and the NumPy numbers and logs in checkpoints of mmengine. Contexts may be nested.
    With ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` set, the context does nothing.

    Raises:
        CheckpointFileError: From the call that reads a damaged file, or one with anything else; names the file.
    """
    if os.environ.get(TRUST, '0').lower() in ('1', 'y', 'yes', 'true'):
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def load_safely(runner: Any) -> None:
    """Make ``runner`` read its checkpoints, and those of its model's ``init_cfg``, within :func:`weights_only`."""
    for part in (runner, getattr(runner, 'strategy', None)):  # of a FlexibleRunner, the strategy reads
        for name in LOADING:
            if hasattr(part, name) and name not in vars(part):
                vars(part)[name] = weights_only()(getattr(part, name))


def _enter() -> None:
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _before.update(env=os.environ.get(FORCE), load=vars(CheckpointLoader)['load_checkpoint'])
            os.environ[FORCE] = '1'
            setattr(CheckpointLoader, 'load_checkpoint', staticmethod(_named(CheckpointLoader.load_checkpoint)))  # noqa: B010
            if hasattr(mm_checkpoint, '_safe_torch_load'):  # which allows getattr, and everything at a second try
                _before['fork'] = mm_checkpoint._safe_torch_load
                mm_checkpoint._safe_torch_load = _tensors_of


def _leave() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            setattr(CheckpointLoader, 'load_checkpoint', _before.pop('load'))  # noqa: B010
            if 'fork' in _before:
                mm_checkpoint._safe_torch_load = _before.pop('fork')
            if (value := _before.pop('env')) is None:
                os.environ.pop(FORCE, None)
            else:
                os.environ[FORCE] = value


_before: dict[str, Any] = {}


def _tensors_of(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    return torch.load(file, map_location=map_location, weights_only=True)


def _named(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_checkpoint(filename: str, map_location: Any = None, logger: Any = 'current') -> Any:
        with _naming(filename), _harmless_globals():
            return load(filename, map_location, logger)

    return load_checkpoint


@contextmanager
def _naming(checkpoint: str) -> Iterator[None]:
    """Context whose errors name the file."""
    try:
        yield
    except (ImportError, CheckpointFileError):
        raise
    except Exception as error:  # torch raises many different errors for bad files
        if isinstance(error, OSError) and (error.filename is not None or type(error) is not OSError):
            raise  # which is clear enough
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        telling = next((line for line in lines if 'Unsupported' in line or 'GLOBAL' in line), lines[0])
        raise CheckpointFileError(
            f'{checkpoint} is damaged or holds more than tensors and plain values, and was not read, since that could '
            f'execute code (weights_only=True): {telling} Fetch or write it again; if you trust it as you trust a '
            f'program, set {TRUST}=1 for this command. Runs with '
            "default_hooks.resume=dict(type='mmgps.ExactResumeHook') write checkpoints that load safely."
        ) from error


def harmless_globals() -> list[Any]:
    """Classes that a checkpoint may use in addition to those of torch: NumPy's arrays and mmengine's logs."""
    core = getattr(np, '_core', None) or np.core
    rebuilt = [
        _under(f'{module}.multiarray', name, getattr(core.multiarray, name))
        for module in ('numpy.core', 'numpy._core')
        for name in ('_reconstruct', 'scalar')
    ]
    kinds = {type(np.dtype(code)) for code in '?bBhHiIlLqQefdgFDSU'}
    return [HistoryBuffer, np.ndarray, np.dtype, *kinds, *rebuilt, _under('builtins', 'getattr', _statistic)]


def _statistic(owner: Any, name: str) -> Any:
    """Replacement for ``getattr``, by which a log names its statistics; ``getattr`` itself could reach anything.

    Raises:
        ValueError: For any other attribute.
    """
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise ValueError(f'Unsupported global: the attribute {name!r}')
    return getattr(owner, name)


def _under(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``function`` the name by which files call it."""

    def called(*args: Any) -> Any:
        return function(*args)

    called.__module__, called.__qualname__, called.__name__ = module, name, name
    return called


def _harmless_globals() -> Any:
    serialization: Any = torch.serialization
    if not hasattr(serialization, 'safe_globals'):  # torch before 2.5
        return nullcontext()
    known = set(serialization.get_safe_globals())
    return serialization.safe_globals([each for each in harmless_globals() if each not in known])
