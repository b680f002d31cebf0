"""Prepare a polyp set for training or testing.

python tools/prepare_polyp.py kvasir-seg --source kvasir-seg.zip --out data/kvasir_seg
python tools/prepare_polyp.py kvasir-seg                          # downloads, then writes data/kvasir_seg
python tools/prepare_polyp.py cvc-300 --source TestDataset.zip    # writes data/cvc_300
"""

import argparse
import sys

from mmgps.datasets.prepare import SOURCES, PrepareError, prepare


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Prepare a polyp set for training or testing.')
    parser.add_argument('name', choices=[source.name for source in SOURCES], help='name of the set')
    parser.add_argument('--source', help='zip or folder of the set; default: download')
    parser.add_argument('--out', help='folder to create (default: data/NAME, with underscores)')
    parser.add_argument('--download-dir', help='folder of the downloaded zip (default: beside --out)')
    parser.add_argument('--split-file', help='list of validation ids, instead of the official split')
    parser.add_argument('--allow-partial', action='store_true', help='accept another number of images than published')
    parser.add_argument('--force', action='store_true', help='replace a prepared set')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    try:
        print(prepare(args.pop('name'), at=args.pop('source'), **args))
    except PrepareError as error:
        sys.exit(f'{type(error).__name__}: {error}')


if __name__ == '__main__':
    main()
