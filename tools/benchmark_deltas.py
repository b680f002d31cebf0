"""Measure the size of deltas on a config and the time to switch between two of them. This trains nothing."""

from __future__ import annotations

import argparse
import time

import torch

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.benchmark import format_deltas, measure_deltas  # noqa: E402
from mmgps.engine import add_config_arguments, read_config, weights_only  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('--methods', nargs='+', default=['gps-random', 'bias', 'lora', 'ssf'], metavar='NAME')
    parser.add_argument('--target', default='backbone', help='path of the backbone within the model')
    parser.add_argument('--switches', type=int, default=20, metavar='N', help='timed switches of each method')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--cpu-time', action='store_true', help='measure CPU time, not wall time, for a busy machine')
    return parser.parse_args()


@weights_only()
def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    print(format_deltas(measure_deltas(read_config(args), args.methods, args.target, args.switches, clock)))


if __name__ == '__main__':
    main()
