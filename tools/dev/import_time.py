"""Time imports: python tools/dev/import_time.py [MODULE ...]"""

import os
import statistics
import subprocess
import sys

MODULES = ('mmengine', 'mmgps', 'mmengine.runner', 'mmgps.engine')


def processor_seconds(module: str) -> float:
    """Return the processor time of a process that imports ``module``; unlike wall time, it ignores other programs."""
    before = os.times()
    subprocess.run([sys.executable, '-c', f'import {module}'], check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def medians(modules: list[str], rounds: int) -> dict[str, float]:
    """Return the median time of each module, with all modules measured in turns."""
    times = [[processor_seconds(module) for module in modules] for _ in range(rounds)]
    return dict(zip(modules, map(statistics.median, zip(*times, strict=True)), strict=True))


if __name__ == '__main__':
    for name, seconds in medians(sys.argv[1:] or list(MODULES), 10).items():
        print(f'{seconds:6.2f} s  import {name}')
