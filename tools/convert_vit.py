"""Convert the weights of a plain ViT from mmseg's names to mmpretrain's, which classifiers load.

python tools/convert_vit.py pretrain/deit_tiny_mmseg.pth pretrain/deit_tiny_mmpretrain.pth
"""

import argparse
import sys

from mmgps.models.convert import convert_vit


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help="weights of mmseg's VisionTransformer")
    parser.add_argument('target', help='file to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        state = convert_vit(args.source, args.target)
    except (ValueError, OSError) as error:
        sys.exit(f'convert_vit: {error}')
    print(f'{len(state)} tensors written to {args.target}')


if __name__ == '__main__':
    main()
