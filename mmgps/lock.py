"""One process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Within the block, this process alone works on ``path``; others that come here wait.

    The lock is a hidden file beside ``path``, which stays: removing it would let two processes hold two locks.
    The system frees it when the process ends, in whatever way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f'.{path.name}.lock'), 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
