"""A network of timm with a classifier, and what it is trained on by the frameworks' own loops."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from whole_models import CLASSES, images, labels, shaken

import mmgps


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    import timm

    torch.manual_seed(0)
    model = timm.create_model('test_vit', num_classes=CLASSES, img_size=32, depth=2, embed_dim=16, num_heads=2)
    return shaken(model).to(dtype)


def batches(dtype: torch.dtype = torch.float64, count: int = 6) -> list[tuple[Tensor, Tensor]]:
    return [(images(count=4, seed=at).to(dtype), labels(4, seed=at)) for at in range(count)]


def loader(dtype: torch.dtype = torch.float64) -> DataLoader:
    return DataLoader(batches(dtype), batch_size=None)  # type: ignore[arg-type]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return cross_entropy(model(x), y)


def tune(model: nn.Module, method: str = 'gps', dtype: torch.dtype = torch.float64, **options) -> mmgps.Tuned:
    chosen_by = dict(batches=batches(dtype), loss=lambda batch: loss_of(model, batch))
    return mmgps.tune(model, method, **chosen_by, **options)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
