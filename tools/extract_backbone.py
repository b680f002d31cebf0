"""Write the backbone of a checkpoint to a separate file."""

import argparse
import sys

import torch

from mmgps.models.convert import extract_backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint')
    parser.add_argument('out')
    parser.add_argument('--prefix', default='backbone.', help='prefix of the backbone within the model')
    parser.add_argument('--half', action='store_true', help='store float16, at half the size')
    args = parser.parse_args()
    try:
        weights = extract_backbone(args.checkpoint, args.out, args.prefix, torch.float16 if args.half else None)
    except (ValueError, OSError) as error:
        sys.exit(f'extract_backbone: {error}')
    print(f'{args.out}: {len(weights)} tensors, {sum(w.numel() for w in weights.values()):,} numbers')


if __name__ == '__main__':
    main()
