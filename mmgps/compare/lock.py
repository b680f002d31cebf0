"""One comparison at a time in a work dir."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 30.0


@contextmanager
def locked(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[int]:
    """Hold the lock of ``folder``; yields the file descriptor that holds it.

    A process that inherits the descriptor holds the lock as well. So after a kill it is free once the last training
    process has ended too, which takes a moment.

    Args:
        folder: Made if it is not there.
        patience_s: Seconds to wait.

    Raises:
        RuntimeError: If another comparison still runs in the folder then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / 'lock', os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(file, folder, time.monotonic() + patience_s)
        yield file
    finally:
        os.close(file)


def _take(file: int, folder: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f'another comparison runs in {folder}; wait for its end, or give another --work-dir'
                ) from None
            time.sleep(0.1)
