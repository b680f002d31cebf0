"""Build a folder under a hidden name, move it to its target when finished, and replace only folders built this way."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .archives import is_junk
from .errors import TargetError, listing

MARKER = '.mmgps_prepared.json'
"""File in every prepared set that lists its files."""
HASHED = 1 << 16
"""Leading bytes of each file that its checksum covers."""


@contextmanager
def building(out: Path, force: bool) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` that becomes ``out`` when the block ends without an error.

    Args:
        out: Folder to create.
        force: Replace a set that was built this way. Other content is never replaced.

    Raises:
        TargetError: If ``out`` exists and may not be replaced.
    """
    out = out.absolute()
    check_replaceable(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f'.{out.name}-', suffix='.unfinished', dir=out.parent))
    try:
        made, old = workshop / 'new', workshop / 'old'
        made.mkdir()
        yield made
        (made / MARKER).write_text(json.dumps({'made by': 'mmgps', 'files': _marks(made)}))
        check_replaceable(out, force)  # again: much may have happened since
        if out.exists():
            out.rename(old)
        try:
            made.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    finally:
        shutil.rmtree(workshop)


def check_replaceable(out: Path, force: bool) -> None:
    """Check that replacing ``out`` removes only files that mmgps wrote.

    Raises:
        TargetError: Unless ``out`` is missing or empty, or ``force`` is given and all files in ``out`` match its
            marker.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise TargetError(f'{out} is a file: name a folder that does not exist yet')
    names = [path.name for path in out.iterdir() if not is_junk(path.name)]
    if not names:
        return
    made = _listed(out)
    if made is None:
        raise TargetError(
            f'{out} holds files that mmgps did not make, or made before it marked its sets by {MARKER} '
            f'({listing(names)}): name another folder, or remove it yourself'
        )
    foreign = [name for name, mark in _marks(out).items() if made.get(name) != mark]
    if foreign:
        raise TargetError(
            f'{out} holds files that were added or changed since mmgps prepared it ({listing(foreign)}): name another '
            'folder, or move them away'
        )
    if not force:
        raise TargetError(f'{out} already holds a prepared set, which was left unchanged: add --force to replace it')


def _listed(out: Path) -> dict[str, list[int]] | None:
    """Return the marks that the marker of ``out`` lists; None without a marker by mmgps."""
    try:
        content = json.loads((out / MARKER).read_text())
        return dict(content['files']) if content['made by'] == 'mmgps' else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _marks(folder: Path) -> dict[str, list[int]]:
    """Return the size and the checksum of the beginning of each file below ``folder``, by its path from there.

    The marker itself is left out. A link has an empty mark, because mmgps makes no links.
    """
    found: dict[str, list[int]] = {}
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in [*files, *links]:
            path = Path(parent, name)
            if path != folder / MARKER and not is_junk(name):
                found[path.relative_to(folder).as_posix()] = [] if path.is_symlink() else _mark(path)
    return found


def _mark(path: Path) -> list[int]:
    with path.open('rb') as file:
        return [path.stat().st_size, zlib.crc32(file.read(HASHED))]
