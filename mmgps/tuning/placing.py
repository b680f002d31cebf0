"""Put operations into a network, make sure that they run, and fold them into its weights."""

from __future__ import annotations

import torch
from torch import nn

from .attention import TunedAttention
from .operations import Operation, operations_of, run_operations
from .sites import InjectionError, Site, find_sites


def place(site: Site, operation: Operation) -> None:
    """Put ``operation`` behind the map at ``site``.

    Raises:
        InjectionError: If there is one of its kind.
    """
    owner = site.owner
    if hasattr(owner, operation.key):
        raise InjectionError(f'{site.path!r} already has {operation.key!r}; build the backbone anew')
    operation.to(site.weight.device, site.weight.dtype).train(owner.training)
    if site.attention is not None:
        if 'forward' not in vars(site.attention):
            TunedAttention(site.attention)
    elif run_operations not in owner._forward_hooks.values():
        owner.register_forward_hook(run_operations, with_kwargs=True)
    owner.add_module(operation.key, operation)


def check_connected(backbone: nn.Module) -> None:
    """Make sure that every operation runs: what rebuilds modules may copy children and forget hooks.

    Raises:
        InjectionError: Names the module.
    """
    served = {
        id(part)
        for module in backbone.modules()
        if isinstance(vars(module).get('forward'), TunedAttention)
        for part in (module, module.out_proj)
    }
    for path, module in backbone.named_modules():
        hooked = run_operations in module._forward_hooks.values()
        if operations_of(module) and not hooked and id(module) not in served:
            raise InjectionError(
                f'{path!r} ({type(module).__name__}) holds {operations_of(module)[0].key!r} and does not run it: '
                'something rebuilt the module after it was injected, as a conversion to SyncBN does'
            )


@torch.no_grad()
def merge_operations(backbone: nn.Module) -> None:
    """Fold all operations into the weights and remove them: what is left is the plain base architecture.

    Raises:
        InjectionError: If one cannot be merged; nothing is changed then.
    """
    sites = [site for site in find_sites(backbone) if operations_of(site.owner)]
    merged = []
    for site in sites:
        weight, bias = site.weight.detach().clone(), None if site.bias is None else site.bias.detach().clone()
        for operation in operations_of(site.owner):
            operation.merge(weight.view(site.outputs, -1), bias)
        merged.append((weight, bias))
    for site, (weight, bias) in zip(sites, merged, strict=True):
        site.weight.copy_(weight)
        if site.bias is not None and bias is not None:
            site.bias.copy_(bias)
    for site in sites:
        _remove(site)


def _remove(site: Site) -> None:
    owner = site.owner
    for operation in operations_of(owner):
        delattr(owner, operation.key)
    for key in [key for key, hook in owner._forward_hooks.items() if hook is run_operations]:
        del owner._forward_hooks[key]
        owner._forward_hooks_with_kwargs.pop(key, None)
    if site.attention is not None:
        vars(site.attention).pop('forward', None)
