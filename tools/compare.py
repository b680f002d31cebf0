"""Compare fine-tuning methods on a config, with rates chosen on training images. See docs/compare.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.compare import (  # noqa: E402
    RunFailedError,
    Settings,
    grids_of,
    parse_assignments,
    parse_candidate,
    read_costs,
    run_comparison,
    stated_options,
    text_of,
)
from mmgps.engine import METHOD_NAMES, MissingInputsError, add_config_arguments, provide_inputs, read_config  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    names = list(METHOD_NAMES)
    options = dict(nargs='+', default=[])
    parser.add_argument('--methods', nargs='+', default=names, help=f'NAME or NAME:KEY=VALUE,...: {", ".join(names)}')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--lrs', metavar='METHOD=A,B,C', help='rates to try', **options)
    parser.add_argument('--lr', metavar='METHOD=A', help='a fixed rate instead of a search', **options)
    parser.add_argument('--holdout', type=float, default=0.125, help='share of training images that score the trials')
    parser.add_argument('--holdout-seed', type=int, default=0, help='seed of these images and of the trials')
    on_holdout = 'hold these images out in the final runs too, and score on them instead of the validation set'
    parser.add_argument('--on-holdout', action='store_true', help=on_holdout)
    parser.add_argument('--trial-share', type=float, default=1.0, help='share of the epochs or iterations in a trial')
    parser.add_argument('--jobs', type=int, default=1, help='simultaneous runs')
    parser.add_argument('--threads', type=int, default=1, help='OMP_NUM_THREADS of each run')
    parser.add_argument('--costs', metavar='FILE', help='step time and memory from tools/benchmark.py --json FILE')
    parser.add_argument('--work-dir', help='folder of runs and tables; default: work_dirs/compare_<config name>')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    candidates = [parse_candidate(text) for text in args.methods]
    fixed = parse_assignments(args.lr, candidates)
    cfg = read_config(args)
    settings = Settings(
        cfg=cfg,
        name=Path(args.config).name,
        candidates=candidates,
        seeds=args.seeds,
        grids=grids_of(candidates, parse_assignments(args.lrs, candidates), fixed),
        fixed={label: rate for label, (rate,) in fixed.items()},
        work_dir=Path(args.work_dir or f'work_dirs/compare_{Path(args.config).stem}'),
        share=args.holdout,
        trial_share=args.trial_share,
        split_seed=args.holdout_seed,
        on_holdout=args.on_holdout,
        jobs=args.jobs,
        threads=args.threads,
        costs=read_costs(args.costs, candidates) if args.costs else None,
        stated=stated_options(args.cfg_options or {}),
    )
    try:
        provide_inputs(cfg)
        print(text_of(run_comparison(settings)))
    except (MissingInputsError, RunFailedError) as error:
        sys.exit(f'{type(error).__name__}: {error}')


if __name__ == '__main__':
    main()
