"""Arguments that the tools share, and the config and runner that they make."""

from __future__ import annotations

import argparse
import os
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS

from ..resuming.checkpoints import check_last_checkpoint
from ..safe_loading import load_safely, weights_only
from .components import METHOD_NAMES
from .config import set_data_root, tune_config


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config and the options that change it."""
    parser.add_argument('config', help='config file, of mmgps or of any mm library')
    parser.add_argument('--data-root', help='read the data sets of the config from here')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override the config')


def add_tune_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that put a method into the config."""
    parser.add_argument('--tune', metavar='METHOD', help=f'fine-tune by METHOD: {", ".join(METHOD_NAMES)}')
    parser.add_argument(
        '--tune-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='arguments of METHOD, such as k=2'
    )
    parser.add_argument(
        '--tune-target', metavar='PATH', help='part of the model that METHOD tunes, such as image_encoder or neck'
    )


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the launcher options of every mm tool."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def read_config(args: argparse.Namespace) -> Config:
    """Read the config that ``args`` name, and apply their changes.

    ``args`` are parsed by :func:`add_config_arguments`, and by :func:`add_tune_arguments` and
    :func:`add_launcher_arguments` if the tool has them.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: For ``--data-root`` if no data set of the config has one, or for options or a target of a method
            without the method.
    """
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    if 'tune' in args:
        if (args.tune_options or args.tune_target) and not args.tune:
            raise ValueError('--tune-options and --tune-target need --tune METHOD')
        if args.tune:
            tune_config(cfg, args.tune, args.tune_options, args.tune_target)
    if 'launcher' in args:
        cfg.launcher = args.launcher
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


def build_runner(cfg: Config) -> Any:
    """Build a ``Runner``, or the class that ``runner_type`` of ``cfg`` names, such as ``FlexibleRunner``.

    Raises:
        ValueError: For a ``strategy``, which ``Runner`` would ignore.
        CheckpointFileError: From the runner, for a checkpoint that is damaged or holds code.
        LastCheckpointError: If a run resumes and ``last_checkpoint`` points to no complete file.
    """
    if cfg.get('strategy') and cfg.get('runner_type', 'Runner') == 'Runner':
        raise ValueError("a Runner ignores strategy; set runner_type='FlexibleRunner' beside it")
    if cfg.get('resume') and not cfg.get('load_from'):
        check_last_checkpoint(cfg.work_dir)
    with weights_only():  # some models read files when they are built
        runner = RUNNERS.build(cfg)
    load_safely(runner)
    return runner
