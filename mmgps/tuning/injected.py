"""Injected modules: rebuild the method that made them, unload them, or merge them into the weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from mmgps.rewiring import Injected, Structure, drop_compiled, roll_back
from mmgps.selection import Selection

from .adapter import Bottleneck
from .base import RECORD, TuningMethod
from .lora import LowRank
from .methods import INJECTING
from .operations import Operation, TunedAttention, operations_of, run_operations, run_within
from .sites import InjectionError, check_called, find_sites
from .ssf import ScaleShift
from .vpt import PROMPT_KEY, PromptedWindows, enter_prompts, leave_prompts

KEYS = {Bottleneck.key, LowRank.key, ScaleShift.key, PROMPT_KEY}
"""Names of the injected modules within their owners."""
HOOKS = (run_operations, run_within, enter_prompts, leave_prompts)


def rebuild_method(selection: Selection) -> TuningMethod:
    """The method that made ``selection``, to inject its modules.

    Raises:
        ValueError: For a method that injects no modules or is unknown to mmgps; names the known ones.
    """
    if selection.method not in INJECTING:
        raise ValueError(
            f'no method of mmgps that adds modules is called {selection.method!r}; expected one of '
            f'{", ".join(INJECTING)}; pass the method itself if it is your own'
        )
    return cast(TuningMethod, INJECTING[selection.method](**dict(selection.settings)))


def unload(backbone: nn.Module) -> None:
    """Remove every injected module of ``backbone`` with its hooks, which leaves the base.

    An exception within leaves all of them in place.
    """
    before = Structure(backbone)
    try:
        for module in list(backbone.modules()):
            for key in [key for key, child in module.named_children() if isinstance(child, Injected)]:
                delattr(module, key)
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                for handle in [handle for handle, hook in hooks.items() if hook in HOOKS]:
                    del hooks[handle]
                    module._forward_hooks_with_kwargs.pop(handle, None)
            own = vars(module).get('forward')
            if isinstance(own, TunedAttention | PromptedWindows):
                own.remove()
        vars(backbone).pop(RECORD, None)
        drop_compiled()
    except BaseException:
        before.restore()
        raise


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
                f'{path!r} ({type(module).__name__}) is not a linear map of an output and cannot be merged'
            )
    merged: list[tuple[nn.Parameter, Tensor]] = []
    for site in find_sites(backbone):
        operations = operations_of(site.owner)
        if not operations:
            continue
        check_called(site, type(operations[0]).__name__)
        weight, bias = site.weight.detach().clone(), None if site.bias is None else site.bias.detach().clone()
        for operation in operations:
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
