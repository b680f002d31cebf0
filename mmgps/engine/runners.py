"""The runner that a config asks for."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS


def build_runner(cfg: Config) -> Any:
    """A ``Runner``, or what ``runner_type`` of ``cfg`` names, such as ``FlexibleRunner``.

    Raises:
        ValueError: For a ``strategy``, which ``Runner`` would ignore.
    """
    if cfg.get('strategy') and cfg.get('runner_type', 'Runner') == 'Runner':
        raise ValueError("strategy is of no effect in a Runner; set runner_type='FlexibleRunner' beside it")
    return RUNNERS.build(cfg)
