"""File locks: one process at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASK_AGAIN_S = 0.1


@contextmanager
def file_lock(file: Path, patience_s: float | None = None) -> Iterator[int]:
    """Hold the lock on ``file`` within the block; yields the file descriptor that holds it. See :func:`take`."""
    descriptor = take(file, patience_s)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take(file: Path, patience_s: float | None = None) -> int:
    """Lock ``file``; returns the file descriptor that holds the lock until it is closed.

    The file stays: removing it would let two processes hold two locks. The system frees the lock when the process,
    and every process that inherited the descriptor, has ended for whatever reason.

    Args:
        file: Created with its folder if missing.
        patience_s: Seconds to wait for other processes; None waits without limit.

    Raises:
        TimeoutError: If another process still holds the lock after ``patience_s``.
        OSError: If the file cannot be created, or the file system has no locks.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if patience_s is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            _wait(descriptor, file, time.monotonic() + patience_s)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let this process alone work on ``path`` within the block; others wait.

    The lock is a hidden file beside ``path``, which each holder removes.
    """
    file = path.with_name(f'.{path.name}.lock')
    while True:
        with file_lock(file) as descriptor:
            if not _is_at(descriptor, file):  # the previous holder removed it, and others lock a new one
                continue
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
            return


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _wait(descriptor: int, file: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f'another process holds {file}') from None
            time.sleep(ASK_AGAIN_S)
