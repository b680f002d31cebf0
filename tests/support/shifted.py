"""Small plain networks, and their deltas after random changes in place of training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mmgps.delta import BaseFingerprint, Delta, Origin, extract
from mmgps.selection import RandomScore
from mmgps.tuning import GPS, TuningMethod


class Small(nn.Module):
    """A head and a backbone with batch norm, a tied weight and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        tied = nn.Linear(5, 5)
        twin = nn.Linear(5, 5)
        twin.weight = tied.weight
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Flatten()]
        self.backbone = nn.Sequential(*layers, nn.Linear(54, 5), tied, twin)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.backbone(x))
        return found


def picture(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def trained(
    seed: int = 1, method: TuningMethod | None = None, model: nn.Module | None = None
) -> tuple[nn.Module, Delta]:
    """Return a copy of ``model`` with random changes in all trained values, and its delta."""
    model = copy.deepcopy(model or Small())
    chosen = method or GPS(2, score=RandomScore(seed))
    selection = chosen.select(model.backbone, None)
    base = BaseFingerprint.of(model.backbone, selection)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, connections in selection.resolve(model.backbone):
            mask = connections.mask(parameter.neurons)
            parameter.value[mask] += torch.randn(int(mask.sum()), generator=generator)
        named = dict(model.backbone.named_parameters())
        for value in [*(named[name] for name in selection.whole), *model.head.parameters()]:
            value += torch.randn(value.shape, generator=generator)
        model.train()(picture(seed))  # changes the statistics of the norm
    origin = Origin(metrics={'mIoU': 50.0 + seed}, config={'model': {'type': 'Small'}}, iteration=seed)
    return model, extract(model, selection, base, origin=origin)
