"""A part of the training images that trials are scored on, and are not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope


def split(length: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions ``0..length-1`` to train on and to hold out, both ascending.

    Raises:
        ValueError: If one of the two parts would be empty.
    """
    held = round(length * share)
    if not 0 < held < length:
        raise ValueError(
            f'a share of {share} of {length} training images holds out {held}; choose --holdout between 0 and 1 so '
            'that both parts have images'
        )
    order = np.random.default_rng(seed).permutation(length)
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def hold_out(cfg: Config, parts: tuple[list[int], list[int]]) -> None:
    """Make ``cfg`` train on the first part of its training images and be scored on the second, in place.

    The second part goes through the pipeline of the validation set. Nothing of the configured validation and test
    sets is left in the config.

    Args:
        cfg: A config with a training and a validation set.
        parts: From :func:`split`.
    """
    kept, held = parts
    data = innermost(cfg.train_dataloader.dataset)
    scored = ConfigDict({**data, 'indices': held, 'pipeline': innermost(cfg.val_dataloader.dataset).pipeline})
    data['indices'] = kept
    cfg.val_dataloader = {**cfg.val_dataloader, 'dataset': scored}
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg.pop(key, None)


def positions(cfg: Config) -> list[int]:
    """Positions in the whole training set of what the config trains on.

    Raises:
        ValueError: For a set that is made of several.
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
    """The data set within wrappers such as ``RepeatDataset``.

    Raises:
        ValueError: For several sets in one.
    """
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'datasets' in dataset or isinstance(dataset, list | tuple):
        raise ValueError(
            'the training set of the config is made of several, of which no part can be held out; compare on one set'
        )
    return dataset
