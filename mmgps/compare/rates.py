"""Learning rates to try, and how they are set in a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.config import Config

from .candidates import Candidate

GRID = (1e-3, 3e-3, 1e-2)
GRIDS = {'full': (3e-5, 1e-4, 3e-4), 'linear': (3e-3, 1e-2, 3e-2)}
"""Rates that are tried unless the caller says otherwise. All numbers of a pre-trained network bear about a thirtieth
of what a chosen few do; linear probing trains a fresh head."""

ON_THE_HEAD = {'linear'}
"""Methods that train nothing of the backbone: the rate is that of the head."""


def grids_of(
    candidates: Sequence[Candidate], given: Mapping[str, tuple[float, ...]], fixed: Mapping[str, tuple[float, ...]]
) -> dict[str, tuple[float, ...]]:
    """Rates to try for each label without a fixed rate.

    Args:
        candidates: Methods of the comparison.
        given: Labels to rates that the caller wants tried.
        fixed: Labels whose rate is not searched.

    Raises:
        ValueError: If the methods would have different numbers of rates, or one has several fixed ones.
    """
    for label, rates in fixed.items():
        if len(rates) > 1:
            raise ValueError(f'--lr takes one rate, got {len(rates)} for {label}; --lrs takes those to be tried')
    searched = [c for c in candidates if c.label not in fixed]
    grids = {c.label: given.get(c.label, GRIDS.get(c.name, GRID)) for c in searched}
    if len({len(grid) for grid in grids.values()}) > 1:
        listed = ', '.join(f'{label} {len(grid)}' for label, grid in grids.items())
        raise ValueError(
            f'every method gets the same number of rates to try, found {listed}; give --lrs METHOD=... for each method '
            'in question, or --lr METHOD=RATE for one whose rate is not to be searched'
        )
    return grids


def set_rate(cfg: Config, candidate: Candidate, rate: float, target: str) -> None:
    """Make ``cfg`` train by ``rate``: the numbers of the backbone, while the head keeps the rate of the config.

    Args:
        cfg: Changed in place.
        candidate: For a method out of :data:`ON_THE_HEAD` the rate is that of the head.
        rate: The peak learning rate.
        target: Path of the backbone within the model.

    Raises:
        ValueError: For a config without a single optimizer that has a learning rate.
    """
    wrapper = cfg.optim_wrapper
    if 'lr' not in wrapper.get('optimizer', {}):
        raise ValueError(
            'optim_wrapper.optimizer.lr is not set in the config, so a rate for the backbone cannot be set beside it; '
            'compare on a config with one optimizer'
        )
    if candidate.name in ON_THE_HEAD:
        wrapper.optimizer.lr = rate
        return
    paramwise = wrapper.get('paramwise_cfg') or {}
    keys = {**paramwise.get('custom_keys', {})}
    keys.setdefault(target, {})
    inside = {key for key in keys if key.startswith(target)}
    factor = rate / wrapper.optimizer.lr
    keys = {key: {**own, 'lr_mult': factor} if key in inside else own for key, own in keys.items()}
    wrapper.paramwise_cfg = {**paramwise, 'custom_keys': keys}
