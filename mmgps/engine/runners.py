"""The runner that a config asks for."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS

from .checkpoints import load_safely, weights_only
from .last_checkpoint import check_last_checkpoint


def build_runner(cfg: Config) -> Any:
    """A ``Runner``, or what ``runner_type`` of ``cfg`` names, such as ``FlexibleRunner``.

    Raises:
        ValueError: For a ``strategy``, which ``Runner`` would ignore.
        CheckpointFileError: From the runner, for a checkpoint that is damaged or holds code, none of which is executed.
        LastCheckpointError: If a run is to go on and there is nothing whole where ``last_checkpoint`` points.
    """
    if cfg.get('strategy') and cfg.get('runner_type', 'Runner') == 'Runner':
        raise ValueError("strategy is of no effect in a Runner; set runner_type='FlexibleRunner' beside it")
    if cfg.get('resume') and not cfg.get('load_from'):
        check_last_checkpoint(cfg.work_dir)
    with weights_only():  # some models read files when they are built
        runner = RUNNERS.build(cfg)
    load_safely(runner)
    return runner
