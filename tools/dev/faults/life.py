"""One life of a run: a process that runs tools/train.py until it ends or is killed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .points import Points

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Strike:
    """A SIGKILL from outside after some seconds, or from inside at a point; by default none.

    Args:
        seconds: Seconds since the start of the process.
        kind: Kind of the point, see :class:`Points`.
        number: Number of the point among its kind, from 1.
    """

    seconds: float | None = None
    kind: str | None = None
    number: int = 0

    def __str__(self) -> str:
        return f'after {self.seconds:.2f} s' if self.seconds is not None else f'{self.kind}, number {self.number}'


@dataclass(frozen=True)
class Life:
    """End of a process: whether it was killed, its duration, and, if it ended by itself, the points it passed."""

    killed: bool
    seconds: float
    passed: Mapping[str, int]


def live(config: Path, work_dir: Path, strike: Strike = Strike()) -> Life:
    """Run ``tools/train.py CONFIG --work-dir WORK_DIR --resume`` in its own process.

    The process is a fork of this one, so that it does not have to import torch and mmseg again.

    Raises:
        RuntimeError: If the process fails; contains its output.
    """
    began, log, counts = time.monotonic(), work_dir.with_suffix('.log'), work_dir.with_suffix('.json')
    counts.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _train(config, work_dir, strike, log, counts)
    status = _wait(pid, None if strike.seconds is None else began + strike.seconds)
    seconds = time.monotonic() - began
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return Life(True, seconds, {})
    if status:
        raise RuntimeError(f'the run in {work_dir} failed:\n{log.read_text()[-3000:]}')
    return Life(False, seconds, json.loads(counts.read_text()))


def _wait(pid: int, deadline: float | None) -> int:
    """Return the status of the process; kill it at ``deadline``."""
    while deadline is not None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    return os.waitpid(pid, 0)[1]


def _train(config: Path, work_dir: Path, strike: Strike, log: Path, counts: Path) -> None:
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        points = Points(strike.kind, strike.number)
        points.arm()
        sys.argv = ['train.py', str(config), '--work-dir', str(work_dir), '--resume']
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
        counts.write_text(json.dumps(points.passed))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
