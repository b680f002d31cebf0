"""End a process with the one that started it."""

from __future__ import annotations

import os
import threading


def end_with_parent() -> None:
    """End this process as soon as the one that holds the other end of its standard input is gone.

    Only the parent holds that end, so it closes however the parent dies, by SIGKILL too. Call it in a process that was
    started with ``stdin=subprocess.PIPE``.
    """
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    # Not through sys.stdin: its lock, held while reading, would be copied into the workers of a data loader.
    while os.read(0, 1):
        pass
    os._exit(1)
