"""Put operations into a network, and make sure that they run."""

from __future__ import annotations

from torch import nn

from .attention import TunedAttention
from .channels import channel_dim
from .operations import Operation, operations_of, run_operations, run_within
from .sites import InjectionError, Site


def place(site: Site, operation: Operation) -> None:
    """Put ``operation`` behind the map at ``site``.

    Raises:
        InjectionError: If there is one of its kind, or if it is not known where the channels are.
    """
    owner = site.owner
    if hasattr(owner, operation.key):
        raise InjectionError(f'{site.path!r} already has {operation.key!r}; build the backbone anew')
    operation.to(site.weight.device, site.weight.dtype).train(owner.training)
    if site.attention is not None:
        if 'forward' not in vars(site.attention):
            TunedAttention(site.attention)
            site.attention.register_forward_hook(run_within)
    else:
        operation.dim, operation.biased = channel_dim(site), site.bias is not None
        if run_operations not in owner._forward_hooks.values():
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
