"""Train a config: select connections, fine-tune, validate. See README."""

from __future__ import annotations

import argparse
import sys

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.engine import (  # noqa: E402
    MissingInputsError,
    WorkDirError,
    add_config_arguments,
    add_launcher_arguments,
    add_tune_arguments,
    build_runner,
    check_batches,
    enable_amp,
    enable_auto_scale_lr,
    enter_work_dir,
    provide_inputs,
    read_config,
    refuse_delta,
    remove_run,
    set_work_dir,
    weights_only,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints; default: work_dirs/<config name>, followed by _<method> with --tune',
    )
    found = parser.add_mutually_exclusive_group()
    resume = dict(nargs='?', const='auto', metavar='CHECKPOINT')
    found.add_argument('--resume', **resume, help='resume from CHECKPOINT, or from the last one in the work dir')
    found.add_argument('--overwrite', action='store_true', help='replace the files of another run in the work dir')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the lr by the total batch size')
    add_tune_arguments(parser)
    add_launcher_arguments(parser)
    return parser.parse_args()


@weights_only()
def main() -> None:
    args = parse_args()
    cfg = read_config(args)
    set_work_dir(cfg, args.config, args.work_dir, args.tune)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if args.resume:
        refuse_delta(args.resume, 'start from it with --cfg-options load_from=whole.pth')
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    try:
        lock = enter_work_dir(cfg, args.overwrite)
        provide_inputs(cfg)
    except (WorkDirError, MissingInputsError) as error:
        sys.exit(f'{args.config}: {error}')
    runner = build_runner(cfg)
    check_batches(runner.train_dataloader)
    if args.overwrite:
        remove_run(cfg.work_dir)
    runner.train()
    del lock  # the lock has to be held until here


if __name__ == '__main__':
    main()
