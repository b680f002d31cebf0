"""What the selection pass and the choice cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from torch import Tensor, nn

from mmgps.engine import find_backbone
from mmgps.engine.selecting.selection_loss import TrainingLoss
from mmgps.tuning import GPS

from .figures import SelectionCost
from .setup import Setup
from .timing import Clock, interleaved

ROUNDS = 3


def selection_cost(
    setup: Setup,
    model: nn.Module,
    batches: Sequence[Any],
    gradients: Mapping[str, Tensor],
    ks: Sequence[int],
    clock: Clock = time.perf_counter,
) -> SelectionCost:
    """Time the selection pass against a plain forward and backward pass over the same ``batches``, in turns.

    Args:
        setup: Where ``model`` comes from.
        model: Left as it is, but for BN statistics.
        batches: Loaded before, so that neither way pays for loading.
        gradients: Of the pass, to choose from.
        ks: Connections per neuron to choose.
        clock: Gives seconds.
    """
    loss = TrainingLoss(model, setup.optimize(list(model.parameters())))

    def plain(own: Sequence[Any]) -> None:
        for batch in own:
            loss(batch).backward()
            model.zero_grad()

    steps = {'pass': lambda own: setup.gradients(model, own), 'plain': plain}
    times = interleaved(steps, [batches], ROUNDS, 1, setup.device, setup.seed, clock)
    choices = {str(k): _choice_s(find_backbone(model, setup.target), gradients, k, clock) for k in ks}
    return SelectionCost(len(batches), median(times['pass']), median(times['plain']), choices)


def _choice_s(backbone: nn.Module, gradients: Mapping[str, Tensor], k: int, clock: Clock) -> float:
    began = clock()
    GPS(k).select(backbone, gradients)  # ends on the CPU, so CUDA is waited for
    return clock() - began
