"""Shorter training under a schedule of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmgps.engine import BeforeAfterHook

LENGTHS = ('begin', 'end', 'T_max', 'milestones', 'step_size', 'total_steps')
LENGTH_KEYS = ('max_epochs', 'max_iters')


def score_at_the_end(cfg: Config) -> None:
    """Validate once, after the last step, and not before the first, which would count as memory of training."""
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if not _scores_before(hook)]
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if _scores_before(hook)]:
        hooks.pop(name)
    cfg.train_cfg.pop('val_begin', None)
    cfg.train_cfg.pop('dynamic_intervals', None)
    cfg.train_cfg.val_interval = cfg.train_cfg[length_key(cfg)]


def shorten(cfg: Config, share: float, kept: float) -> None:
    """Train for ``share`` of the steps, in place: warm-up and decay keep their part of the whole.

    Args:
        cfg: A config whose loop is counted in epochs or iterations.
        share: Of the epochs or iterations.
        kept: Share of the training images that is left, so of the iterations of an epoch.

    Raises:
        ValueError: For a ``share`` outside (0, 1], or a loop of neither kind.
    """
    if not 0 < share <= 1:
        raise ValueError(f'the share of a trial is to lie in (0, 1], got {share}; set --trial-share')
    key = length_key(cfg)
    before = cfg.train_cfg[key]
    after = cfg.train_cfg[key] = max(1, round(before * share))
    by_iteration = after / before * (kept if key == 'max_epochs' else 1)
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        in_epochs = scheduler.get('by_epoch', True)
        factor = after / before if in_epochs else by_iteration
        if scheduler.get('warm_up'):  # of mmgps.WarmUpCosineLR, in iterations whatever the loop counts
            scheduler['warm_up'] = max(1, round(scheduler['warm_up'] * by_iteration))
        in_parts = scheduler.get('convert_to_iter_based', False)
        for name in LENGTHS:
            if scheduler.get(name) is not None:
                scheduler[name] = _scaled(scheduler[name], factor, in_parts)
        if scheduler.get('end') is not None and not in_parts:
            scheduler['end'] = max(scheduler['end'], scheduler.get('begin', 0) + 1)


def length_key(cfg: Config) -> str:
    """The entry of ``train_cfg`` that counts the steps.

    Raises:
        ValueError: If it has none.
    """
    found = [key for key in LENGTH_KEYS if key in cfg.train_cfg]
    if not found:
        raise ValueError(f'train_cfg has none of {" and ".join(LENGTH_KEYS)}; set one in the config')
    return found[0]


def _scores_before(hook: Any) -> bool:
    return isinstance(hook, Mapping) and hook.get('type') in ('mmgps.BeforeAfterHook', BeforeAfterHook)


def _scaled(value: Any, factor: float, in_parts: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_scaled(part, factor, in_parts) for part in value]
    if in_parts:  # of epochs, which mmengine turns into iterations
        return value * factor
    return max(1, round(value * factor)) if value else value
