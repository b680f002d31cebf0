"""One life of a run: a process that runs tools/train.py, to its end or until it is struck."""

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
    """A SIGKILL, after some seconds from outside, or from within at a point; by default none.

    Args:
        seconds: Since the start of the process.
        kind: Of the point, see :class:`Points`.
        number: Which one of its kind, from 1.
    """

    seconds: float | None = None
    kind: str | None = None
    number: int = 0

    def __str__(self) -> str:
        return f'after {self.seconds:.2f} s' if self.seconds is not None else f'{self.kind}, number {self.number}'


@dataclass(frozen=True)
class Life:
    """How a process ended: killed or by itself, after how long, and what points it had passed if by itself."""

    killed: bool
    seconds: float
    passed: Mapping[str, int]


def live(config: Path, work_dir: Path, strike: Strike = Strike()) -> Life:
    """Run ``tools/train.py CONFIG --work-dir WORK_DIR --resume`` as a process of its own.

    The process is a fork of this one, which spares it the seconds of importing torch and mmseg.

    Raises:
        RuntimeError: If it ends by an error; holds its output.
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
        raise RuntimeError(f'the run in {work_dir} ended by an error:\n{log.read_text()[-3000:]}')
    return Life(False, seconds, json.loads(counts.read_text()))


def _wait(pid: int, deadline: float | None) -> int:
    """The status of the process, which is killed at ``deadline``."""
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
