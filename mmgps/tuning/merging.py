"""Fold operations into the weights of a network."""

from __future__ import annotations

import torch
from torch import nn

from mmgps.selection import Injected

from .ejecting import eject
from .operations import Operation, operations_of
from .sites import InjectionError, check_called, find_sites


@torch.no_grad()
def merge_operations(backbone: nn.Module) -> None:
    """Fold all operations into the weights and remove them: what is left is the plain base architecture.

    Raises:
        InjectionError: If one cannot be merged, or never runs since the weight of its layer is read without calling the
            layer; nothing is changed then.
    """
    for path, module in backbone.named_modules():
        if isinstance(module, Injected) and not isinstance(module, Operation):
            raise InjectionError(
                f'{path!r} ({type(module).__name__}) is no linear map of an output and cannot be merged'
            )
    sites = [site for site in find_sites(backbone) if operations_of(site.owner)]
    merged = []
    for site in sites:
        check_called(site, type(operations_of(site.owner)[0]).__name__)
        weight, bias = site.weight.detach().clone(), None if site.bias is None else site.bias.detach().clone()
        for operation in operations_of(site.owner):
            operation.merge(weight.view(site.outputs, -1), bias)
        merged.append((weight, bias))
    for site, (weight, bias) in zip(sites, merged, strict=True):
        site.weight.copy_(weight)
        if site.bias is not None and bias is not None:
            site.bias.copy_(bias)
    eject(backbone)
