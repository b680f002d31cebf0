"""Compare a full fine-tuning step of SAM at 1024 px with the authors' own implementation: time and peak memory."""

from __future__ import annotations

import argparse
import time

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.benchmark.measurements import machine_header  # noqa: E402
from mmgps.benchmark.sam import Workload, compare, format_costs  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arch', choices=['vit_b', 'vit_l', 'vit_h'], default='vit_b')
    parser.add_argument('--steps', type=int, default=1, metavar='N', help='timed steps, after one untimed step')
    parser.add_argument('--device', default='cpu', help='cpu (the default), cuda or cuda:N')
    parser.add_argument('--recompute', action='store_true', help='mmgps with gradient checkpointing')
    parser.add_argument('--cpu-time', action='store_true', help='measure CPU time, not wall time, for a busy machine')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    header = machine_header(args.device)
    print(', '.join(f'{key}: {value}' for key, value in header.items()))
    clock = time.process_time if args.cpu_time else time.perf_counter
    load = Workload(args.arch, steps=args.steps, device=args.device, recompute=args.recompute, clock=clock)
    print(format_costs(compare(load)))


if __name__ == '__main__':
    main()
