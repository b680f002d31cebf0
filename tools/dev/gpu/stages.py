"""Stages of tools/dev/gpu/run.sh: the tests marked gpu, then the measurements. A failure does not stop the others."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from results import Results

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[2]


@dataclass(frozen=True)
class Stage:
    """A command with a time limit.

    Args:
        name: Name in the results.
        command: Arguments of the Python interpreter.
        limit: Time limit in seconds.
    """

    name: str
    command: tuple[str, ...]
    limit: float


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', default='cuda', choices=['cuda', 'cpu'])
    parser.add_argument('--quick', action='store_true', help='three minutes instead of eight')
    parser.add_argument(
        '--only', nargs='+', metavar='WORD', help='correct, or measurements with one of these words in their name'
    )
    parser.add_argument('--seconds', type=float, help='limit for all stages')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/gpu')
    parser.add_argument('--data', type=Path, default=Path(os.environ.get('MMGPS_TEST_DATA', ROOT / '.gpu/data')))
    return parser.parse_args()


def tests(cuda: bool) -> Stage:
    command = ['-m', 'pytest', '-q', '-m', 'gpu', 'tests/gpu', '-p', 'no:cacheprovider']
    if cuda:
        command += ['tests/sparse/test_devices.py']
        try:
            import xdist  # noqa: F401
        except ModuleNotFoundError:
            pass
        else:
            command += ['-n', '12']
    return Stage('correct', tuple(command), 130 if cuda else 240)


def run(stage: Stage, args: argparse.Namespace) -> int:
    """Run a stage, add its outcome to the results, and return its exit code, which is negative after a kill."""
    paths = [str(ROOT), str(FOLDER), str(ROOT / 'tests/support'), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths)), 'MMGPS_TEST_DEVICE': args.device}
    environment['MMGPS_TEST_DATA'] = str(args.data.resolve())
    began = time.monotonic()
    with (args.out / 'log.txt').open('a') as log:
        log.write(f'==== {stage.name}\n')
        log.flush()
        try:
            code = subprocess.run(
                [sys.executable, *stage.command], cwd=ROOT, env=environment, timeout=stage.limit,
                stdout=log, stderr=subprocess.STDOUT,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = -1
    seconds = round(time.monotonic() - began, 1)
    said = (args.out / 'log.txt').read_text(errors='replace').rpartition(f'==== {stage.name}\n')[2].splitlines()
    ended = 'passed' if code == 0 else f'ended with {code}' if code > 0 else 'killed, or out of time'
    print(f'{stage.name}: {ended} in {seconds} s', *said[-1 if code == 0 else -25 :], sep='\n  ', flush=True)
    Results(args.out).add(stage.name, [], ended=ended, seconds=seconds, last=said[-1][:200] if said else '')
    return code


def measured(args: argparse.Namespace, end: float) -> bool:
    """Measure in one process; after a crash, continue in a new one with the next task."""
    done, well, reached = 0, True, args.out / 'task'
    while (left := end - time.monotonic()) > 15:
        options = dict(device=args.device, out=args.out, data=args.data, skip=done, seconds=left - 12)
        command = [str(FOLDER / 'measure.py'), *(f'--{name}={value}' for name, value in options.items())]
        command += ['--quick'] * args.quick + (['--only', *args.only] if args.only else [])
        reached.unlink(missing_ok=True)
        code = run(Stage('measured', tuple(command), left), args)
        well &= code == 0
        if code >= 0 or not reached.is_file():
            break
        done = int(reached.read_text()) + 1
    return well


def main() -> None:
    args = parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit('no CUDA device here; --device cpu runs every stage at toy size')
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + (args.seconds or (170 if args.quick else 470 if args.device == 'cuda' else 1200))
    passed = [run(tests(args.device == 'cuda'), args) == 0] if not args.only or 'correct' in args.only else []
    if args.only != ['correct']:
        passed.append(measured(args, end))
    print(f'{sum(passed)} passed, {len(passed) - sum(passed)} failed')
    sys.exit(not all(passed))


if __name__ == '__main__':
    main()
