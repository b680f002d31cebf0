"""The work dir of a run: its name, its lock, and the files that runs leave in it."""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import shutil
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path

from mmengine._strategy import DDPStrategy
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process, master_only
from mmengine.logging import print_log
from mmengine.registry import STRATEGIES
from mmengine.utils.dl_utils import set_multi_processing

from mmgps.utils.lock import take

from ..resuming.checkpoints import NOTE

LOCK = '.run.lock'
SELECTION = 'selection.safetensors'
DELTAS = 'deltas'
#: Seconds in which the system releases the locks and GPU memory of a process that was just killed.
PATIENCE_S = 5.0
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
#: Names that mmengine and ``mmgps.DeltaHook`` generate; anything else in the folder belongs to the user.
WRITTEN_AT = r'(best_.+_)?(epoch|iter)_\d+'
CHECKPOINT = re.compile(rf'{WRITTEN_AT}(-[0-9a-f]{{8}})?\.pth')
DELTA = re.compile(rf'{WRITTEN_AT}\.safetensors')
SHOWN = 3


class WorkDirError(ValueError):
    """Another run uses the work dir, or has left files in it."""


def set_work_dir(cfg: Config, config_path: str, work_dir: str | None = None, method: str | None = None) -> None:
    """Set the work dir: that of the caller, else of the config, else a folder named after config file and method."""
    name = '_'.join([Path(config_path).stem, *([method] if method else [])])
    cfg.work_dir = work_dir or cfg.get('work_dir') or f'work_dirs/{name}'


def enter_work_dir(cfg: Config, overwrite: bool = False) -> WorkDirLock | None:
    """Lock the work dir of ``cfg``, and check that the run would overwrite nothing of another run.

    Call it on every process of a run before anything is written. The processes first join, as the Runner would let
    them, since only one of them holds the lock and all must end if it cannot.

    Args:
        cfg: Config of the run.
        overwrite: Accept the files of another run; :func:`remove_run` deletes them.

    Returns:
        The lock, to be kept until the run is over; None on the other processes, and for folders without a lock.

    Raises:
        WorkDirError: If another process trains there; or if the folder holds checkpoints, deltas or a selection of
            another run, ``cfg`` does not resume and ``overwrite`` is False.
    """
    lock = lock_work_dir(cfg.work_dir) if _joined(cfg) else None
    found = [] if cfg.get('resume') or overwrite else files_of_a_run(cfg.work_dir)
    if found:
        names = [path.name for path in found[:SHOWN]] + (['...'] if len(found) > SHOWN else [])
        raise WorkDirError(
            f'{cfg.work_dir} holds files of another run ({", ".join(names)}): continue that run by '
            '--resume, write elsewhere by --work-dir FOLDER, or replace those files by --overwrite'
        )
    return lock


def _joined(cfg: Config) -> bool:
    """Let the processes of a run join. Return True once they have, or if there is only one.

    A strategy with its own launcher lets them join later, when the Runner is built.
    """
    if cfg.get('launcher', 'none') == 'none' or is_distributed():
        return True
    strategy = (cfg.get('strategy') or {}).get('type', DDPStrategy)
    if not issubclass(STRATEGIES.get(strategy) if isinstance(strategy, str) else strategy, DDPStrategy):
        return False
    environment = cfg.get('env_cfg') or {}
    set_multi_processing(**environment.get('mp_cfg', {}), distributed=True)
    init_dist(cfg.launcher, **environment.get('dist_cfg', {}))
    return True


def files_of_a_run(work_dir: str | Path) -> list[Path]:
    """List checkpoints, deltas and selection in the folder, and the note of the last checkpoint.

    Logs and pictures have a folder per run, and every run overwrites the config and the report of its selection.
    """
    folder = Path(work_dir)
    note = folder / NOTE
    last = Path(note.read_text().strip()).name if note.is_file() else ''  # filename_tmpl allows any name
    ours = {NOTE, SELECTION, last}
    top = [path for path in folder.glob('*') if CHECKPOINT.fullmatch(path.name) or path.name in ours]
    return sorted([*top, *(path for path in folder.glob(f'{DELTAS}/*') if DELTA.fullmatch(path.name))])


@master_only
def remove_run(work_dir: str | Path) -> None:
    """Delete the files of :func:`files_of_a_run`, and nothing else."""
    for path in files_of_a_run(work_dir):
        if path.is_dir() and not path.is_symlink():  # from a strategy that shards the model
            shutil.rmtree(path)
        else:
            path.unlink()


def lock_work_dir(work_dir: str) -> WorkDirLock | None:
    """Lock ``work_dir`` for this run; process 0 holds the lock for all.

    A process may lock a folder more than once. A folder of a remote store has no lock.

    Raises:
        WorkDirError: On every process, if another run holds the lock; names that run.
        OSError: If the folder cannot be created or written to.
    """
    if '://' in work_dir:
        return None
    lock, failure = None, None
    if is_main_process():
        try:
            lock = _lock(Path(work_dir).resolve())
        except (WorkDirError, OSError) as error:
            failure = error
    message = [None if failure is None else str(failure)]
    broadcast_object_list(message)
    if failure is not None:
        raise failure
    if message[0] is not None:
        raise WorkDirError(message[0])
    return lock


class WorkDirLock:
    """Lock of a folder, held while something refers to this object and at most while the process lives.

    Forked data loader workers inherit open files. Each releases the lock at once, so that the lock does not outlive a
    killed run.

    Raises:
        TimeoutError: If another process holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        descriptor = take(folder / LOCK, PATIENCE_S)
        self.release = weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a full disk; the text serves only a message
            os.ftruncate(descriptor, 0)
            started = time.strftime('%Y-%m-%d %H:%M:%S %Z')
            os.write(descriptor, f'process {os.getpid()} on {socket.gethostname()}, since {started}'.encode())


_held: weakref.WeakValueDictionary[Path, WorkDirLock] = weakref.WeakValueDictionary()


def _lock(folder: Path) -> WorkDirLock | None:
    held = _held.get(folder)
    if held is not None:
        return held
    try:
        lock = WorkDirLock(folder)
    except TimeoutError as error:
        holder = (folder / LOCK).read_text() or 'another process'
        raise WorkDirError(
            f'{folder} is in use by another run ({holder}): wait for its end, or give another --work-dir'
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        text = f'{folder} is on a file system without locks: make sure that no other run writes there'
        print_log(text, 'current', logging.WARNING)
        return None
    _release_in_forks()
    _held[folder] = lock
    return lock


@functools.cache
def _release_in_forks() -> None:
    os.register_at_fork(after_in_child=_release)


def _release() -> None:
    for lock in list(_held.values()):
        lock.release()
    _held.clear()
