"""Points at which a process can die: during selection, before it touches a file, or while it writes one."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend

import mmgps.selection.checked_safetensors as sealed
from mmgps.engine.selecting.selection_batches import SelectionBatches

TOUCHES = {'open': 'before opening', 'os.rename': 'before moving', 'os.remove': 'before removing'}


def content_of(path: Any) -> str | None:
    """Describe the content of a finished or unfinished file; None for logs and the like."""
    name = Path(os.fsdecode(path)).name if isinstance(path, str | bytes | os.PathLike) else ''
    held = {'last_checkpoint': 'last_checkpoint', 'selection.safetensors': 'the selection', '.pth': 'a checkpoint'}
    return next((what for part, what in held.items() if part in name), None)


class Points:
    """Counts the points that this process passes, and kills it at one of them.

    Args:
        kind: Kind of the point to die at; None to count only.
        number: Number of the point among its kind, from 1.
    """

    def __init__(self, kind: str | None = None, number: int = 0) -> None:
        self.kind, self.number = kind, number
        self.passed: Counter[str] = Counter()

    def arm(self) -> None:
        """Watch this process from now on."""
        sys.addaudithook(self._touch)
        put, write, save = LocalBackend.put, Path.write_bytes, sealed.save_file
        batches = SelectionBatches.__iter__

        def put_half(backend: LocalBackend, content: bytes, path: Any) -> None:
            self._write(path, content, lambda part: put(backend, part, path))

        def write_half(path: Path, content: bytes) -> int:
            self._write(path, content, lambda part: write(path, part))
            return len(content)

        def save_half(tensors: Any, path: str, metadata: Any) -> None:
            save(tensors, path, metadata)
            if self._reached('halfway in writing the selection'):
                os.truncate(path, os.path.getsize(path) // 2)
                die()

        def select(loader: SelectionBatches) -> Iterator[Any]:
            for batch in batches(loader):
                self._strike('in the selection pass')
                yield batch

        LocalBackend.put, Path.write_bytes, sealed.save_file = put_half, write_half, save_half
        SelectionBatches.__iter__ = select

    def _touch(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in TOUCHES or (what := content_of(args[0])) is None:
            return
        if event == 'open' and 'w' not in (args[1] or ''):
            return
        self._strike(f'{TOUCHES[event]} {what}')

    def _write(self, path: Any, content: bytes, write: Any) -> None:
        what = content_of(path)
        if what and self._reached(f'halfway in writing {what}'):
            write(content[: len(content) // 2])
            die()
        write(content)

    def _strike(self, kind: str) -> None:
        if self._reached(kind):
            die()

    def _reached(self, kind: str) -> bool:
        self.passed[kind] += 1
        return (kind, self.passed[kind]) == (self.kind, self.number)


def die() -> None:
    """Die like under ``kill -9``: without flushing, closing or cleaning up."""
    os.kill(os.getpid(), signal.SIGKILL)
