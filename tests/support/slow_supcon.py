"""Contrastive selection pass as a slow loop that shares only the seeds of the views with the fast one."""

import random

import numpy as np
import torch
from torch import nn

from mmgps.engine.resuming.seeding import mixed_seed

TEMPERATURE = 0.07


def view(dataset, seed: int, place: int, index: int, number: int) -> torch.Tensor:
    """Draw a view like the selection pass, and normalise it by hand."""
    its_own = mixed_seed(mixed_seed(seed, place, index), number)
    random.seed(its_own)
    np.random.seed(its_own)  # noqa: NPY002
    torch.manual_seed(its_own)
    packed = dataset[index]
    return (packed['inputs'].float() - 100) / 50


def slow_term(features: list[torch.Tensor], labels: list[int]) -> torch.Tensor:
    """Compute the loss of a batch, pair by pair."""
    unit = [one / one.square().sum().sqrt() for one in features]
    terms = []
    for i, own in enumerate(unit):
        others = [a for a in range(len(unit)) if a != i]
        below = sum(torch.exp((own * unit[a]).sum() / TEMPERATURE) for a in others)
        partners = [a for a in others if labels[a] == labels[i]]
        shares = [torch.exp((own * unit[p]).sum() / TEMPERATURE) / below for p in partners]
        terms.append(-sum(map(torch.log, shares)) / len(partners))
    return sum(terms) / len(terms)


def slow_gradients(model: nn.Module, dataset, seed: int, size: int) -> dict[str, torch.Tensor]:
    """Sum the gradients over batches of ``size`` images, each weighted by its number of images."""
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    sums = {name: torch.zeros_like(value) for name, value in model.backbone.named_parameters()}
    for begin in range(0, len(order), size):
        places = range(begin, min(begin + size, len(order)))
        drawn = [(order[at], view(dataset, seed, at, order[at], number)) for at in places for number in range(2)]
        out = model.backbone(torch.stack([image for _, image in drawn]))[-1]
        out = out.mean((2, 3)) if out.dim() == 4 else out
        labels = [dataset.labels[index] for index, _ in drawn]
        loss = slow_term(list(out), labels) * len(places)
        found = torch.autograd.grad(loss, list(model.backbone.parameters()), allow_unused=True)
        for name, gradient in zip(sums, found, strict=True):
            sums[name] += 0 if gradient is None else gradient
    return sums
