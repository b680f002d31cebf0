"""One comparison at a time in a work dir."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mmgps.utils.lock import file_lock

PATIENCE_S = 30.0


@contextmanager
def locked(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[int]:
    """Hold the lock of ``folder``; yields the file descriptor that holds it.

    The processes that train inherit it. So after a kill it is free once the last of them has ended too, which takes a
    moment.

    Args:
        folder: Made if it is not there.
        patience_s: Seconds to wait.

    Raises:
        RuntimeError: If another comparison still runs in the folder then.
    """
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(folder / 'lock', patience_s))
        except TimeoutError as error:
            raise RuntimeError(
                f'another comparison runs in {folder}; wait for its end, or give another --work-dir'
            ) from error
        yield descriptor
