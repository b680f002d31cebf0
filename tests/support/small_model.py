"""A model with a backbone and a head that trains in a millisecond."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import mmgps

SIDE = 8


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.loss = logits.square().mean()


class SmallModel(nn.Module):
    """A block without attention and a head; provides ``model(x).loss`` like transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(SIDE, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 16))
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Output:
        return Output(self.head(self.backbone(x)))


def batches(count: int = 4) -> list[Tensor]:
    return [torch.randn(32, SIDE, generator=torch.Generator().manual_seed(at)) for at in range(count)]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def moved(model: nn.Module, before: dict[str, Tensor]) -> dict[str, int]:
    """Count the values that differ from ``before``, for each tensor with a difference."""
    counts = {name: int((value != before[name]).sum()) for name, value in model.state_dict().items() if name in before}
    return {name: count for name, count in counts.items() if count}


CHOSEN = {
    'backbone.0.weight': 16,
    'backbone.0.bias': 16,
    'backbone.3.weight': 16,
    'backbone.3.bias': 16,
    'head.weight': 32,
    'head.bias': 2,
}
OPTIONS: dict[str, dict] = {'spt-lora': {'budget': 20}, 'spt-adapter': {'budget': 20}}


def tuned_by(method: str, model: SmallModel, loader: list[Tensor], **options) -> mmgps.Tuned:
    options = {**OPTIONS.get(method, {}), **options}
    return mmgps.tune(model, method, batches=loader, loss=lambda batch: model(batch).loss, **options)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, loader: list[Tensor]) -> None:
    for batch in loader:
        model(batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
