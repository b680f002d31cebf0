"""Rename the weights of a plain ViT from mmseg's names to those of mmpretrain, which classifiers start from.

python tools/convert_vit.py pretrain/deit_tiny_mmseg.pth pretrain/deit_tiny_mmpretrain.pth
"""

import argparse

import torch

from mmgps.models.rename_vit import mmpretrain_names


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help="weights of mmseg's VisionTransformer")
    parser.add_argument('target', help='file to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    loaded = torch.load(args.source, map_location='cpu', weights_only=True)
    state = mmpretrain_names(loaded.get('state_dict', loaded))
    torch.save({'state_dict': state}, args.target)
    print(f'{len(state)} tensors written to {args.target}')


if __name__ == '__main__':
    main()
