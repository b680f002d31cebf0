"""Fold operations into the weights of a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mmgps.selection import Injected

from .ejecting import eject
from .operations import Operation, operations_of
from .sites import InjectionError, check_called, find_sites
from .structure import roll_back


@torch.no_grad()
def merge_operations(backbone: nn.Module) -> None:
    """Fold all operations into the weights and remove them: what is left is the plain base architecture.

    Raises:
        InjectionError: If one cannot be merged, or never runs since the weight of its layer is read without calling the
            layer. This or any other exception changes nothing.
    """
    for path, module in backbone.named_modules():
        if isinstance(module, Injected) and not isinstance(module, Operation):
            raise InjectionError(
                f'{path!r} ({type(module).__name__}) is no linear map of an output and cannot be merged'
            )
    sites = [site for site in find_sites(backbone) if operations_of(site.owner)]
    merged: list[tuple[nn.Parameter, Tensor]] = []
    for site in sites:
        check_called(site, type(operations_of(site.owner)[0]).__name__)
        weight, bias = site.weight.detach().clone(), None if site.bias is None else site.bias.detach().clone()
        for operation in operations_of(site.owner):
            operation.merge(weight.view(site.outputs, -1), bias)
        merged.append((site.weight, weight))
        if site.bias is not None and bias is not None:
            merged.append((site.bias, bias))
    undo: list[Callable[[], object]] = []
    try:
        for value, new in merged:
            undo.append(partial(value.copy_, value.clone()))
            value.copy_(new)
        eject(backbone)
    except BaseException:
        roll_back(undo)
        raise
