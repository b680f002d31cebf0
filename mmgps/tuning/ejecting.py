"""Take out of a network what a method put into it."""

from __future__ import annotations

from torch import nn

from mmgps.selection import Injected
from mmgps.sparse.forward import OwnForward

from .attention import TunedAttention
from .injection import forget
from .operations import run_operations, run_within
from .prompts import enter_prompts, leave_prompts
from .structure import Structure, drop_compiled
from .window_prompts import PromptedWindows

OWN_FORWARDS = (TunedAttention, PromptedWindows)
HOOKS = (run_operations, run_within, enter_prompts, leave_prompts)


def eject(backbone: nn.Module) -> None:
    """Remove every injected module of ``backbone`` and whatever runs it: the base is left, as it was before.

    Any exception within leaves all of them in place.
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
