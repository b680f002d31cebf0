"""The runner that a config asks for."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS

from .last_checkpoint import check_last_checkpoint


def build_runner(cfg: Config) -> Any:
    """A ``Runner``, or what ``runner_type`` of ``cfg`` names, such as ``FlexibleRunner``.

    Raises:
        ValueError: For a ``strategy``, which ``Runner`` would ignore.
        LastCheckpointError: If a run is to go on and there is nothing whole where ``last_checkpoint`` points.
    """
    if cfg.get('strategy') and cfg.get('runner_type', 'Runner') == 'Runner':
        raise ValueError("strategy is of no effect in a Runner; set runner_type='FlexibleRunner' beside it")
    if cfg.get('resume') and not cfg.get('load_from'):
        check_last_checkpoint(cfg.work_dir)
    return RUNNERS.build(cfg)
