"""What a run goes on from: the file that ``last_checkpoint`` of its work dir names."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

NOTE = 'last_checkpoint'
BEST = re.compile(r'(best_.+)_(?:epoch|iter)_\d+(\.\w+)')


class LastCheckpointError(ValueError):
    """There is nothing whole where ``last_checkpoint`` points."""


def check_last_checkpoint(work_dir: str | Path) -> None:
    """Make sure that a run can go on from what ``last_checkpoint`` names; without one it starts anew.

    Nothing is loaded: a checkpoint is a zip archive, whose directory stands at its end.

    Raises:
        LastCheckpointError: Names the newest whole checkpoint that is there instead.
    """
    note = Path(work_dir) / NOTE
    if not note.is_file():
        return
    wrong = _wrong(note.read_text().strip())
    if wrong:
        raise LastCheckpointError(f'cannot resume: {note} {wrong}; {_advice(Path(work_dir))}')


def resumed(runner: Runner) -> bool:
    """Whether a run goes on from a checkpoint; one that is told to resume before there is any starts anew."""
    return runner._resume and runner._has_loaded


def is_training(runner: Runner) -> bool:
    """Whether what ``runner`` loads is for training; for a validation or a test it builds no optimizer."""
    return isinstance(runner.optim_wrapper, OptimWrapper)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end; folders, which some strategies write, are not looked into."""
    return path.is_dir() or zipfile.is_zipfile(path)


def remove_other_best(folder: Path, best: str) -> None:
    """Remove the files in ``folder`` that ``best`` took the place of, which a killed run had no time to remove.

    Args:
        folder: Of the run.
        best: Name of the best file of a score, such as ``best_mIoU_iter_200.pth``.
    """
    named = BEST.fullmatch(best)
    for path in folder.glob('best_*'):
        found = BEST.fullmatch(path.name)
        if named and found and path.is_file() and path.name != best and found.groups() == named.groups():
            path.unlink()


def _wrong(name: str) -> str:
    if not name:
        return 'is empty'
    if '://' in name or (Path(name).exists() and is_whole(Path(name))):
        return ''
    return f'names {name}, which is ' + ('damaged: its end is missing' if Path(name).exists() else 'not there')


def _advice(work_dir: Path) -> str:
    found = [path for path in work_dir.glob('*.pth') if path.is_file() and is_whole(path)]
    found.sort(key=lambda path: path.stat().st_mtime)
    if not found:
        return f'no whole checkpoint lies beside it; delete {NOTE} to start anew'
    return f'the newest whole checkpoint beside it is {found[-1]}: go on from that one with --resume {found[-1]}'
