"""Unload the modules that a method injected, or merge them into the weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mmgps.rewiring import Injected, OwnForward, Structure, drop_compiled, roll_back

from .injection import forget
from .operations import Operation, TunedAttention, operations_of, run_operations, run_within
from .sites import InjectionError, check_called, find_sites
from .vpt import PromptedWindows, enter_prompts, leave_prompts

OWN_FORWARDS = (TunedAttention, PromptedWindows)
HOOKS = (run_operations, run_within, enter_prompts, leave_prompts)


def unload(backbone: nn.Module) -> None:
    """Remove every injected module of ``backbone`` and its hooks, which leaves the base as it was before.

    An exception within leaves all of them in place.
    """
    before = Structure(backbone)
    try:
        for module in list(backbone.modules()):
            for key in [key for key, child in module.named_children() if isinstance(child, Injected)]:
                delattr(module, key)
            _remove_hooks(module)
            own = vars(module).get('forward')
            if isinstance(own, OwnForward) and isinstance(own, OWN_FORWARDS):
                own.remove()
        forget(backbone)
        drop_compiled()
    except BaseException:
        before.restore()
        raise


def _remove_hooks(module: nn.Module) -> None:
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key in [key for key, hook in hooks.items() if hook in HOOKS]:
            del hooks[key]
            module._forward_hooks_with_kwargs.pop(key, None)


@torch.no_grad()
def merge_operations(backbone: nn.Module) -> None:
    """Fold all operations into the weights and remove them, which leaves the plain base architecture.

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
        unload(backbone)
    except BaseException:
        roll_back(undo)
        raise
