"""Measure the cost of fine-tuning methods on a config: time, memory and bytes to exchange. See docs/performance.md."""

from __future__ import annotations

import argparse
import sys
import time

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.benchmark import Options, Setup, draw_chart, run_benchmark  # noqa: E402
from mmgps.engine import MissingInputsError, add_config_arguments, provide_inputs, read_config, weights_only  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('--target', default='backbone', help='path of the backbone within the model')
    parser.add_argument('--batch-size', type=int, help='default: the batch size of the config')
    parser.add_argument('--steps', type=int, default=20, metavar='N', help='timed steps of each method')
    parser.add_argument('--warmup', type=int, default=2, metavar='N', help='untimed steps before them')
    parser.add_argument('--methods', nargs='+', metavar='NAME', help='names such as bias or gps-compact-k1')
    parser.add_argument('--k', nargs='+', type=int, default=[1, 2, 5, 20], help='connections per neuron')
    parser.add_argument('--selection-batches', type=int, default=20, metavar='N', help='batches of the selection pass')
    parser.add_argument('--selection-cost', action='store_true', help='time the selection too')
    parser.add_argument('--no-rss', action='store_true', help='skip peak memory, a process per method on the CPU')
    parser.add_argument('--cpu-time', action='store_true', help='measure CPU time, not wall time, for a busy machine')
    parser.add_argument('--device', default='cpu', help='cpu (the default), cuda or cuda:N')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', metavar='FILE', help='write the results as JSON')
    parser.add_argument('--png', metavar='FILE', help='draw the results')
    return parser.parse_args()


@weights_only()
def main() -> None:
    args = parse_args()
    options = Options(
        methods=args.methods,
        ks=args.k,
        steps=args.steps,
        warmup=args.warmup,
        batch_size=args.batch_size,
        selection_batches=args.selection_batches,
        peak=not args.no_rss,
        selection_cost=args.selection_cost,
        clock=time.process_time if args.cpu_time else time.perf_counter,
    )
    cfg = read_config(args)
    try:
        provide_inputs(cfg)
    except MissingInputsError as error:
        sys.exit(f'{args.config}: {error}')
    report = run_benchmark(Setup(cfg, args.target, args.device, args.seed), options, args.config)
    print(report.text())
    if args.json:
        report.write_json(args.json)
    if args.png:
        draw_chart(report, args.png)


if __name__ == '__main__':
    main()
