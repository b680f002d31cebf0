"""Swap GPS into one config of every architecture of the installed model zoos.

``PYTHONPATH=tools/dev python -m zoos --out work_dirs/zoo`` trains each for two iterations without mmgps and for two
with ``--tune gps``, and writes the results as JSON; a second call continues where the first one ended.
``--table docs/coverage.md`` writes the table from these results.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

from mmgps.utils.requirements import require

from .architectures import STACKS, listed
from .drive import sweep
from .table import write_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/zoo'), help='folder of the results')
    parser.add_argument('--stacks', nargs='+', choices=STACKS, default=[stack for stack in STACKS if find_spec(stack)])
    parser.add_argument(
        '--only',
        nargs='+',
        default=[''],
        metavar='TEXT',
        help='architectures with one of these texts in STACK/SMALLEST_CONFIG',
    )
    parser.add_argument('--timeout', type=float, default=600, metavar='SECONDS', help='limit for one config')
    parser.add_argument('--memory', type=float, default=12, metavar='GIB', help='limit for one config')
    parser.add_argument('--table', type=Path, help='write the coverage table to this file')
    parser.add_argument('--no-run', action='store_true', help='only write the table')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    for stack in args.stacks:
        require(stack)
    lists = {stack: listed(stack, args.out / f'{stack}.json', args.only) for stack in args.stacks}
    for stack, (found, _) in lists.items():
        if args.no_run:
            break
        sweep(found, args.out / stack, args.timeout, args.memory)
    if args.table:
        found, unread = ({stack: each[at] for stack, each in lists.items()} for at in (0, 1))
        options = ' '.join(option for option in sys.argv[1:] if option != '--no-run')
        write_table(found, unread, args.out, args.table, options)


if __name__ == '__main__':
    main()
