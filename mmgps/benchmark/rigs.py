"""A method at work on its own copy of the model."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmgps.engine import find_backbone
from mmgps.engine.selecting.selection_loss import TrainingLoss
from mmgps.tuning import count_parts, freeze_unselected

from .recipes import Recipe
from .setup import Setup


class Rig:
    """One method applied to a model, with its optimizer, as :class:`mmgps.engine.TuneHook` applies it.

    Args:
        setup: Where it comes from.
        model: A model for this rig alone.
        recipe: The method.
    """

    def __init__(self, setup: Setup, model: nn.Module, recipe: Recipe) -> None:
        self.model: Any = model
        backbone = find_backbone(model, setup.target)
        selection = recipe.apply(backbone)
        sparse = recipe.training(backbone, selection)
        freeze_unselected(backbone, selection)
        replaced = sparse.replacements()
        self.values = [replaced.get(value, value) for value in model.parameters() if value.requires_grad]
        """What the optimizer holds; its gradients are what processes exchange."""
        self.trained = sum(part.trained for part in count_parts(model, setup.target, selection))
        """Numbers that move."""
        self.wrapper = setup.optimize(self.values)
        self.wrapper.sparse = self.sparse = sparse
        self.loss = TrainingLoss(model, self.wrapper)
        """Of a batch, with its graph; for the accounting of what a forward keeps."""
        sparse.start()

    def step(self, batch: Any) -> None:
        """Forward of the model's loss, backward, optimizer step, zeroing of the gradients; may change ``batch``."""
        self.model.train_step(batch, optim_wrapper=self.wrapper)
