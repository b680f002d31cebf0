"""A learning rate that fits any number of iterations: linear warm-up, then cosine."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF

from mmgps.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmUpCosineLR(LRSchedulerMixin, _ParamScheduler):
    r"""Warm up for a number of iterations, at most a share of the run, then decay to ``eta_min``.

    With :math:`w = \min(\text{warm\_up}, \lfloor \text{at\_most} \cdot T \rfloor)` of :math:`T` iterations, the rate of
    iteration :math:`t` is :math:`\eta (s + (1 - s)\, t / (w - 1))` for :math:`t < w`, where :math:`s` is
    ``start_factor``, and :math:`\eta_{min} + (\eta - \eta_{min}) (1 + \cos(\pi (t - w) / (T - w))) / 2` afterwards.
    So every run, however short, reaches the rate of the config. These are mmengine's ``LinearLR`` from 0 to :math:`w`
    and ``CosineAnnealingLR`` from :math:`w` to :math:`T`.

    In a loop by epochs set ``convert_to_iter_based=True``, in one by iterations ``by_epoch=False``. By default ``end``
    is the length of the run.

    Args:
        optimizer: Optimizer or its wrapper.
        warm_up: Length of the warm-up in iterations.
        start_factor: First rate as a share of the config's rate, in (0, 1].
        eta_min: Rate after the last iteration.
        at_most: Largest share of the run that the warm-up may take, in [0, 1).
        begin: First iteration; only 0 makes sense.
        end: Length of the run in iterations.
        last_step: See mmengine.
        by_epoch: Must be False, or converted to iterations.
        verbose: Print each rate.

    Raises:
        ValueError: For a warm-up below 0, a factor or share out of its range, or a schedule that counts epochs.
    """

    def __init__(
        self,
        optimizer: Any,
        warm_up: int = 50,
        start_factor: float = 0.02,
        eta_min: float = 0.0,
        at_most: float = 0.1,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ) -> None:
        if warm_up < 0 or not 0 < start_factor <= 1 or not 0 <= at_most < 1:
            raise ValueError(
                'warm_up must be at least 0, start_factor in (0, 1] and at_most in [0, 1), got '
                f'{warm_up}, {start_factor} and {at_most}'
            )
        if by_epoch:
            raise ValueError(
                f'{type(self).__name__} counts iterations; set convert_to_iter_based=True in a loop by epochs, '
                'by_epoch=False in one by iterations'
            )
        self.start_factor, self.eta_min = start_factor, eta_min
        self.warm_up = min(warm_up, math.floor(at_most * (end - begin) + 1e-9))
        super().__init__(optimizer, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    @classmethod
    def build_iter_from_epoch(
        cls,
        *,
        begin: float = 0,
        end: float = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **options: Any,
    ) -> WarmUpCosineLR:
        """Build it for ``end`` epochs of ``epoch_length`` iterations; ``warm_up`` already counts iterations."""
        if not by_epoch or epoch_length is None:
            raise ValueError(f'convert_to_iter_based needs by_epoch=True and an epoch, got {by_epoch}, {epoch_length}')
        first = int(begin * epoch_length)
        last = end if end == INF else max(int(end * epoch_length), first + 1)
        return cls(**options, begin=first, end=int(last), by_epoch=False)

    def _get_value(self) -> list[float]:
        """Compute the rate of each parameter group in the current iteration."""
        return [self._rate(base) for base in self.base_values]

    def _rate(self, base: float) -> float:
        step, left = self.last_step, self.end - self.begin - self.warm_up
        if step < self.warm_up:
            return base * (self.start_factor + (1 - self.start_factor) * step / max(self.warm_up - 1, 1))
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * (step - self.warm_up) / left)) / 2
