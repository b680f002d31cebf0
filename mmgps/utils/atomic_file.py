"""Files that appear complete or not at all."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PARTIAL = re.compile(r'\..+\.(\d+)\.part')


@contextmanager
def atomic_file(path: str | os.PathLike[str], alone: bool = False) -> Iterator[Path]:
    """Yield a path to write to, and move it to ``path`` if no error occurs. Creates the folder if necessary.

    A reader sees the old file or the new one, never half of either, even after a kill or a power failure: the content
    reaches the disk before the name does. The file gets the mode of any new file, by the umask. Leftovers of killed
    processes are removed from the folder first.

    Args:
        path: Where the file appears.
        alone: True if no other process writes the file. The next write then overwrites the leftovers of a killed
            process, even if another process has its number by then.

    Raises:
        OSError: If the file cannot be written, for example to a full disk; names ``path``, which stays as it was.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        partial = target.with_name(f'.{target.name}.part' if alone else f'.{target.name}.{os.getpid()}.part')
        try:
            partial.touch()
            mode = partial.stat().st_mode & 0o777  # of a new file, by the umask and the folder
            partial.unlink()
            yield partial
            partial.chmod(mode)
            _flush(partial)
            os.replace(partial, target)
            with suppress(OSError):  # some network file systems cannot flush folders
                _flush(target.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if str(target) in str(error):
            raise
        raise type(error)(error.errno, f'{error.strerror or error}: {target} was not written') from error


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path``, as :func:`atomic_file` does."""
    with atomic_file(path) as partial:
        partial.write_bytes(content)


@contextmanager
def skipped_if_unwritable(warn: Callable[[str], object]) -> Iterator[None]:
    """Report through ``warn`` if the block cannot write its file, for example a picture, and continue."""
    try:
        yield
    except OSError as error:
        warn(f'{error}; going on without it')


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files in ``folder`` of processes that are gone."""
    for path in folder.glob('.*.part'):
        found = PARTIAL.fullmatch(path.name)
        if found and not _runs(int(found[1])):
            with suppress(OSError):  # another process may remove it now, or may own it
                path.unlink()


def check_apart(out: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Make sure that a tool does not overwrite its input, not even through a link.

    Raises:
        ValueError: If ``out`` is one of ``inputs``.
    """
    for path in inputs:
        there = os.path.exists(out) and os.path.exists(path)
        if os.path.realpath(out) == os.path.realpath(path) or (there and os.path.samefile(out, path)):
            raise ValueError(
                f'{os.fspath(out)} would overwrite {os.fspath(path)}, from which it is made; name another file to write'
            )


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; NaN and infinity, which JSON lacks, become ``null``."""
    write_atomically(path, (json.dumps(_finite_json(content), indent=2, allow_nan=False) + '\n').encode())


def read_json(path: Path) -> Any:
    """The content, or None if there is no such file or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _finite_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
