"""Combine comparisons on several data sets into one table with group means. See docs/classification.md.

python tools/suite_table.py work_dirs/compare_vit-b16_*/table.json
"""

import argparse
import sys

from mmgps.utils.requirements import require

require('mmengine')

from mmgps.compare.markdown import read_column, suite_table  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('tables', nargs='+', help='table.json of each comparison')
    parser.add_argument('--metric', default='top1', help='name of the score in the file (default: top1)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        print(suite_table([read_column(path, args.metric) for path in args.tables]))
    except ValueError as error:
        sys.exit(f'ValueError: {error}')


if __name__ == '__main__':
    main()
