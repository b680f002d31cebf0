"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str], alone: bool = False) -> Iterator[Path]:
    """A path to write to, which is moved to ``path`` on leaving without an error; makes the folder if need be.

    A reader sees the old file or the new one, and a run that is killed leaves no half of either. The content is on the
    disk before the name is, so that neither does a power failure.

    Args:
        path: Where the file appears.
        alone: Whether no other process writes it at the same time. Then what a killed one left of a large file is
            overwritten by the next, instead of lying about.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f'.{target.name}.part' if alone else f'.{target.name}.{os.getpid()}.part')
    try:
        yield partial
        _flush(partial)
        os.replace(partial, target)
        with suppress(OSError):  # some file systems of a network flush no folders
            _flush(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path``, as :func:`whole_file` does."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
