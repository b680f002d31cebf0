"""Build a folder out of sight and show it only when it is finished."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmgps.datasets.prepare.errors import TargetError, listing

OURS = frozenset({'images', 'annotations', 'train.txt', 'val.txt'})


@contextmanager
def building(out: Path, force: bool, ours: Collection[str] = OURS) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends without an error.

    Args:
        out: The folder to make.
        force: Whether a finished set may be replaced. Anything else never is.
        ours: Names that a finished set may hold at its top.

    Raises:
        TargetError: If ``out`` exists and may not be replaced.
    """
    out = out.absolute()
    check_replaceable(out, force, ours)
    out.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f'.{out.name}-', suffix='.unfinished', dir=out.parent))
    try:
        made = workshop / 'new'
        made.mkdir()
        yield made
        _swap_in(made, out, workshop / 'old')
    finally:
        shutil.rmtree(workshop)


def check_replaceable(out: Path, force: bool, ours: Collection[str] = OURS) -> None:
    """Raise ``TargetError`` unless ``out`` does not exist, is empty, or is a prepared set and ``force`` is given."""
    if not out.exists():
        return
    if not out.is_dir():
        raise TargetError(f'{out} is a file: name a folder that does not exist yet')
    strangers = {path.name for path in out.iterdir()} - set(ours)
    if strangers:
        raise TargetError(f'{out} holds what no prepared set does ({listing(strangers)}): name another folder')
    if any(out.iterdir()) and not force:
        raise TargetError(f'{out} holds a prepared set already, which was left as it is: add --force to replace it')


def _swap_in(made: Path, out: Path, old: Path) -> None:
    if out.exists():
        out.rename(old)
    try:
        made.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
