"""Prepare VTAB-1k, or some of its 19 tasks. See docs/classification.md.

python tools/prepare_vtab.py --source vtab-1k.zip                    # writes data/vtab-1k
python tools/prepare_vtab.py --source vtab-1k.zip --tasks cifar dtd
"""

import argparse
import sys

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.datasets.prepare import PrepareError  # noqa: E402
from mmgps.datasets.prepare.class_sets import vtab_set  # noqa: E402
from mmgps.datasets.prepare.classification import prepare_set  # noqa: E402
from mmgps.vtab_tasks import TASKS  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Prepare VTAB-1k.')
    parser.add_argument(
        '--tasks',
        nargs='+',
        default=[],
        choices=[task.name for task in TASKS],
        help='default: all 19; one command prepares the whole folder',
    )
    parser.add_argument('--source', help='vtab-1k.zip, or a folder with this file or with its content')
    parser.add_argument('--out', default='data/vtab-1k', help='folder to create (default: data/vtab-1k)')
    parser.add_argument('--allow-partial', action='store_true', help='accept another number of images than published')
    parser.add_argument('--force', action='store_true', help='replace a prepared set')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    tasks, out = args.pop('tasks'), args.pop('out')
    try:
        print(prepare_set(vtab_set(tasks), out, 'python tools/prepare_vtab.py', at=args.pop('source'), **args))
    except PrepareError as error:
        sys.exit(f'{type(error).__name__}: {error}')


if __name__ == '__main__':
    main()
