"""Check GPS on networks of timm, transformers and torchvision against slow oracles that share no code with it.

``PYTHONPATH=tools/dev python -m frameworks --table docs/coverage_frameworks.md`` checks all and writes the table.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

from .check import ALL, check
from .networks import TIMM, TORCHVISION, TRANSFORMERS


def row(facts: dict[str, object]) -> str:
    """Format a row of the table."""
    counts = [', '.join(f'{n} {key}' for key, n in sorted(facts[name].items())) for name in ('roles', 'routes')]  # type: ignore[attr-defined]
    return f'| {facts["name"]} | {counts[0]} | {facts["connections"]} | {counts[1]} | {facts["lora"]} |'


def write_tables(path: Path, rows: dict[str, str]) -> None:
    """Insert ``rows`` under the heading of each library's table."""
    parts = path.read_text().split('|---|---|---|---|---|\n')
    for at, names in enumerate((TIMM, TRANSFORMERS, TORCHVISION), start=1):
        _, blank, behind = parts[at].partition('\n## ')
        lines = [rows[name] for name in names if name in rows]
        parts[at] = '\n'.join(lines) + '\n' + (f'{blank}{behind}' if blank else '')
    path.write_text('|---|---|---|---|---|\n'.join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', default=ALL)
    parser.add_argument('--table', type=Path)
    given = parser.parse_args()
    warnings.simplefilter('ignore')
    rows = {}
    for name in given.names:
        start = time.time()
        try:
            rows[name] = row(check(name))
        except Exception as error:
            rows[name] = f'| {name} | failed: {type(error).__name__}: {str(error)[:300]} | | | |'
        sys.stdout.write(f'{rows[name]} {time.time() - start:.0f} s\n')
        sys.stdout.flush()
    if given.table:
        write_tables(given.table, rows)


if __name__ == '__main__':
    main()
