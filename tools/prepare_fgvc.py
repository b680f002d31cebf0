"""Prepare a data set of fine-grained classification. See docs/classification.md.

python tools/prepare_fgvc.py cub                                     # downloads, then writes data/cub
python tools/prepare_fgvc.py nabirds --source downloads --out data/nabirds
"""

import argparse
import sys

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.datasets.prepare import PrepareError  # noqa: E402
from mmgps.datasets.prepare.class_sets import FGVC  # noqa: E402
from mmgps.datasets.prepare.classification import prepare_set  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Prepare a data set of fine-grained classification.')
    parser.add_argument('name', choices=list(FGVC), help='name of the set')
    parser.add_argument('--source', help='folder with the published files or with their content; default: download')
    parser.add_argument('--out', help='folder to create (default: data/NAME, with underscores)')
    parser.add_argument('--download-dir', help='folder of the downloaded files (default: beside --out)')
    parser.add_argument('--allow-partial', action='store_true', help='accept another number of images than published')
    parser.add_argument('--force', action='store_true', help='replace a prepared set')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    name, out = args.pop('name'), args.pop('out')
    command = f'python tools/prepare_fgvc.py {name}'
    try:
        print(prepare_set(FGVC[name], out or f'data/{name.replace("-", "_")}', command, at=args.pop('source'), **args))
    except PrepareError as error:
        sys.exit(f'{type(error).__name__}: {error}')


if __name__ == '__main__':
    main()
