"""Turn a config into a trial: hold out training images for scoring, and shorten the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from mmgps.engine import BeforeAfterHook

LENGTHS = ('begin', 'end', 'T_max', 'milestones', 'step_size', 'total_steps')
LENGTH_KEYS = ('max_epochs', 'max_iters')


def split(length: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split the positions ``0..length-1`` into a part to train on and a part to hold out, both ascending.

    Raises:
        ValueError: If one of the two parts would be empty.
    """
    held = round(length * share)
    if not 0 < held < length:
        raise ValueError(
            f'a share of {share} of {length} training images holds out {held}; choose --holdout between 0 and 1 such '
            'that both parts have images'
        )
    order = np.random.default_rng(seed).permutation(length)
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def hold_out(cfg: Config, parts: tuple[list[int], list[int]]) -> None:
    """Let ``cfg`` train on the first part of its training images and score on the second, in place.

    The second part goes through the pipeline of the validation set. The config loses its own validation and test sets.

    Args:
        cfg: A config with a training and a validation set.
        parts: Positions from :func:`split`.
    """
    kept, held = parts
    data = innermost(cfg.train_dataloader.dataset)
    scored = ConfigDict({**data, 'indices': held, 'pipeline': innermost(cfg.val_dataloader.dataset).pipeline})
    data['indices'] = kept
    cfg.val_dataloader = {**cfg.val_dataloader, 'dataset': scored}
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg.pop(key, None)


def positions(cfg: Config) -> list[int]:
    """Return the positions within the whole training set that the config trains on.

    Raises:
        ValueError: If the training set consists of several sets.
    """
    data = {**innermost(cfg.train_dataloader.dataset)}
    chosen = data.pop('indices', None)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    everything = range(len(DATASETS.build(data)))
    if chosen is None:
        return list(everything)
    if isinstance(chosen, int):
        return list(everything[:chosen] if chosen >= 0 else everything[chosen:])
    return [everything[at] for at in chosen]


def innermost(dataset: Any) -> Any:
    """Unwrap the config of a data set from wrappers such as ``RepeatDataset``.

    Raises:
        ValueError: If it consists of several sets.
    """
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'datasets' in dataset or isinstance(dataset, list | tuple):
        raise ValueError(
            'the training set of the config consists of several sets, so no part can be held out; compare on one set'
        )
    return dataset


def score_at_the_end(cfg: Config) -> None:
    """Validate only after the last step; an earlier validation would count as memory of training."""
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if not _scores_before(hook)]
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if _scores_before(hook)]:
        hooks.pop(name)
    cfg.train_cfg.pop('val_begin', None)
    cfg.train_cfg.pop('dynamic_intervals', None)
    cfg.train_cfg.val_interval = cfg.train_cfg[length_key(cfg)]


def shorten(cfg: Config, share: float, kept: float) -> None:
    """Reduce training to ``share`` of the steps, in place; warm-up and decay keep their proportions.

    Args:
        cfg: A config whose training is measured in epochs or iterations.
        share: Share of the epochs or iterations.
        kept: Remaining share of the training images, and so of the iterations per epoch.

    Raises:
        ValueError: If ``share`` is outside (0, 1], or the loop counts neither epochs nor iterations.
    """
    if not 0 < share <= 1:
        raise ValueError(f'the share of a trial must lie in (0, 1], got {share}; set --trial-share')
    key = length_key(cfg)
    before = cfg.train_cfg[key]
    after = cfg.train_cfg[key] = max(1, round(before * share))
    by_iteration = after / before * (kept if key == 'max_epochs' else 1)
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        in_epochs = scheduler.get('by_epoch', True)
        factor = after / before if in_epochs else by_iteration
        if scheduler.get('warm_up'):  # of mmgps.WarmUpCosineLR: always in iterations
            scheduler['warm_up'] = max(1, round(scheduler['warm_up'] * by_iteration))
        in_parts = scheduler.get('convert_to_iter_based', False)
        for name in LENGTHS:
            if scheduler.get(name) is not None:
                scheduler[name] = _scaled(scheduler[name], factor, in_parts)
        if scheduler.get('end') is not None and not in_parts:
            scheduler['end'] = max(scheduler['end'], scheduler.get('begin', 0) + 1)


def length_key(cfg: Config) -> str:
    """Return the key of ``train_cfg`` that sets the length of training.

    Raises:
        ValueError: If there is none.
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
    if in_parts:  # fractions of epochs, which mmengine turns into iterations
        return value * factor
    return max(1, round(value * factor)) if value else value
