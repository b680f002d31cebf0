"""Train each run in its own process, a few at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mmengine.logging import print_log

from mmgps.utils.lock import file_lock

from .runs import Run

POLL_S = 0.1
LINE = 300
CHILD = ('-m', 'mmgps.compare.child')
PATIENCE_S = 30.0


class RunFailedError(RuntimeError):
    """Some runs failed; the message names their logs."""


def run_all(runs: Sequence[Run], jobs: int, threads: int, lock: int, finished: Callable[[Run], object]) -> list[str]:
    """Train the runs without a result. If one fails, the others continue.

    Args:
        runs: Runs, in order.
        jobs: Number of simultaneous runs.
        threads: ``OMP_NUM_THREADS`` of each process.
        lock: File descriptor that each process inherits.
        finished: Called with every run that succeeded.

    Returns:
        A sentence for each run that failed.
    """
    waiting = deque(run for run in runs if run.result() is None)
    if len(runs) > len(waiting):
        say(f'{len(runs) - len(waiting)} of {len(runs)} runs have finished before')
    running: dict[Run, subprocess.Popen] = {}
    failures = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                running[run] = start(run, threads, lock)
            time.sleep(POLL_S)
            for run in [run for run, process in running.items() if process.poll() is not None]:
                failure = _failure(run, running.pop(run).returncode)
                say(failure or f'{run}: done, {len(waiting) + len(running)} to go')
                if failure:
                    failures.append(failure)
                else:
                    finished(run)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return failures


def start(run: Run, threads: int, lock: int) -> subprocess.Popen:
    """Start the process that trains ``run``."""
    stale = run.under_other_settings()
    if stale and not run.folder.exists():
        say(f'{run}: the settings have changed, so it starts anew; {stale[0].name} stays as it is')
    run.prepare()
    say(f'{run}: training in {run.folder}')
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    with run.log.open('a') as log:
        return subprocess.Popen(
            [sys.executable, *CHILD, str(run.folder)],
            stdin=subprocess.PIPE,  # the child's watchdog ends it when this end closes
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[lock],
        )


def _failure(run: Run, code: int) -> str | None:
    """Describe why a run failed; None if it wrote its result."""
    if code == 0 and run.result() is not None:
        return None
    lines = [line for line in run.log.read_text(errors='replace').splitlines() if line.strip()]
    ended = f'was ended by signal {-code}' if code < 0 else f'exited with {code}'
    return f'{run}: {ended}; its log is {run.log}, which ends: {(lines or ["(empty)"])[-1].strip()[:LINE]}'


def say(message: str) -> None:
    """Log progress for the user."""
    print_log(message, logger='current')


@contextmanager
def locked(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[int]:
    """Hold the lock of ``folder``, so that only one comparison runs there, and yield its file descriptor.

    The training processes inherit the descriptor. After a kill the lock therefore stays held for a moment, until the
    last of them has ended.

    Args:
        folder: Folder of the comparison; created if missing.
        patience_s: Seconds to wait for the lock.

    Raises:
        RuntimeError: If another comparison still runs in the folder after that time.
    """
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(folder / 'lock', patience_s))
        except TimeoutError as error:
            raise RuntimeError(
                f'another comparison runs in {folder}; wait for its end, or give another --work-dir'
            ) from error
        yield descriptor
