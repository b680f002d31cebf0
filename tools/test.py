"""Score a checkpoint on the test set of its config."""

from __future__ import annotations

import argparse

from mmgps.utils.requirements import require

require('mmseg')

from mmengine.runner import Runner  # noqa: E402

from mmgps.engine import (  # noqa: E402
    add_config_arguments,
    add_launcher_arguments,
    add_tune_arguments,
    augment_test,
    follow_method,
    keep_training_config,
    read_config,
    refuse_delta,
    set_work_dir,
    show_predictions,
    weights_only,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder of logs and metrics; default: the work dir of the training')
    parser.add_argument('--tta', action='store_true', help='average over the views of tta_pipeline')
    parser.add_argument('--show-dir', help='folder of pictures of truth and prediction')
    add_tune_arguments(parser)
    add_launcher_arguments(parser)
    return parser.parse_args()


@weights_only()
def main() -> None:
    args = parse_args()
    refuse_delta(args.checkpoint, 'score that')
    cfg = read_config(args)
    set_work_dir(cfg, args.config, args.work_dir, args.tune)
    if args.show_dir:
        show_predictions(cfg, args.show_dir)
    if args.tta:
        augment_test(cfg)
    follow_method(cfg)
    cfg.load_from, cfg.resume = args.checkpoint, False
    keep_training_config(cfg)
    Runner.from_cfg(cfg).test()


if __name__ == '__main__':
    main()
