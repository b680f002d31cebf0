"""A selection pass without a runner, and what it found."""

from types import SimpleNamespace
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from mmgps.engine import GPSOptimWrapper
from mmgps.engine.selecting.selection_pass import select
from mmgps.tuning import GPS

SEED = 3


def probed(model: nn.Module, loader: dict[str, Any], *objective: Any) -> tuple[dict, dict, int]:
    """Summed gradients, chosen positions, and the batches of this process.

    Args:
        model: With a backbone.
        loader: Config of the training data loader.
        objective: The selection loss, if another than the task's.
    """
    runner = SimpleNamespace(
        train_dataloader=Runner.build_dataloader(loader),
        seed=SEED,
        model=model,
        optim_wrapper=GPSOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)),
        logger=MMLogger.get_current_instance(),
    )
    gradients = {}
    method = GPS(2)
    chosen = method.select
    method.select = lambda backbone, found: (gradients.update(found), chosen(backbone, found))[1]
    choice = select(runner, model.backbone, method, None, *objective)
    return gradients, {name: item.positions for name, item in choice.selection.connections.items()}, choice.cost.batches
