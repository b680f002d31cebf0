"""A network under a method, trained in plain PyTorch by the steps that the hook takes."""

from __future__ import annotations

import torch
from architectures import SIDE, maps
from torch import Tensor, nn

import mmgps
from mmgps.engine.optim import GPSOptimWrapper, take_over
from mmgps.selection import Selection, sum_gradients
from mmgps.tuning import InjectionMethod, TuningMethod, freeze_unselected


class Whole(nn.Module):
    """A backbone and a head that sums its maps up by fixed weights, with one number of its own to train."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Parameter(torch.ones(()))

    def forward(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        like = next(self.backbone.parameters())
        found = maps(self.backbone, torch.randn(2, 3, SIDE, SIDE, generator=generator).to(like))
        return self.head * sum(self._score(y, generator) for y in found)

    @staticmethod
    def _score(y: Tensor, generator: torch.Generator) -> Tensor:
        weights = torch.randn(y.shape, generator=generator).to(y)
        return (weights * y).mean() + (y - 1).square().mean()


class Tuned:
    """``backbone`` under ``method``.

    Args:
        backbone: Without anything injected.
        method: What tunes it.
        selection: One that was made before, as on resuming.
    """

    def __init__(self, backbone: nn.Module, method: TuningMethod, selection: Selection | None = None) -> None:
        if isinstance(method, InjectionMethod):
            method.inject(backbone)
        self.model, self.method = Whole(backbone), method
        self.wrapper = GPSOptimWrapper(torch.optim.AdamW(self.model.parameters(), lr=1e-2, weight_decay=0.05))
        self.selection = selection or self._select()
        tuned = mmgps.Tuned(self.model, self.selection, method)
        take_over(self.wrapper, tuned)
        self.training = tuned.training

    def _select(self) -> Selection:
        gradients, backbone = None, self.model.backbone
        if self.method.needs_gradient:
            values = {name: entry.value for name, entry in self.method.candidates(backbone).items()}
            gradients = sum_gradients(self.model, values, [100, 101], self.model, None, self.method.accumulation)
        return self.method.select(backbone, gradients)

    def train(self, steps: range) -> Tuned:
        self.model.train()
        self.training.start(registered=False)
        for step in steps:
            torch.manual_seed(step)
            self.wrapper.update_params(self.model(step))
        self.training.close()
        freeze_unselected(self.model.backbone, self.selection)
        return self

    def held(self) -> set[int]:
        """Ids of what the optimizer holds."""
        return {id(value) for group in self.wrapper.param_groups for value in group['params']}


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@torch.no_grad()
def outputs(backbone: nn.Module) -> list[Tensor]:
    """What ``backbone`` gives for a fixed picture, in eval mode."""
    mode = backbone.training
    backbone.eval()
    kind = next(backbone.parameters()).dtype
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9)).to(kind)
    found = maps(backbone, x)
    backbone.train(mode)
    return found
