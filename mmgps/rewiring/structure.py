"""Add modules to a network, and restore its modules, hooks and flags if changing them fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


class Structure:
    """Snapshot of the children, hooks, attributes and ``requires_grad`` flags of every module of a network.

    Numbers of tensors are not copied. Modules that are removed from the network stay alive in the snapshot.

    Args:
        root: The network.
    """

    def __init__(self, root: nn.Module) -> None:
        parts = [vars(module) for module in root.modules()]
        self._attributes = [(part, dict(part)) for part in parts]
        self._contents = [(held, dict(held)) for part in parts for held in part.values() if isinstance(held, dict)]
        self._flags = [(value, value.requires_grad) for value in root.parameters()]

    def restore(self) -> None:
        """Restore everything; may be called again, even after an interrupted call."""
        changed = [pair for pair in (*self._attributes, *self._contents) if not _same(*pair)]
        for held, before in changed:
            held.clear()
            held.update(before)
        for value, flag in self._flags:
            value.requires_grad_(flag)
        if changed:
            drop_compiled()


def _same(held: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return list(held) == list(before) and all(value is before[key] for key, value in held.items())


def drop_compiled() -> None:
    """Discard compiled code, since torch does not notice hooks that are added or removed later."""
    dynamo = sys.modules.get('torch._dynamo')
    if dynamo is not None:
        dynamo.reset()


def roll_back(steps: list[Callable[[], Any]]) -> None:
    """Run ``steps`` from last to first, and remove each from the list when it is done.

    Ctrl-C does not interrupt it, since the exception that led here is raised afterwards. Steps can be repeated, so a
    roll-back that was stopped in another way can continue.
    """
    while steps:
        try:
            steps[-1]()
            steps.pop()
        except KeyboardInterrupt:
            continue


class Injected(nn.Module):
    """Base class of the modules that a method adds to a network.

    An injected module is a child of the module that it changes, under a name of its own, so the base keeps its names
    and shapes. It owns plain parameters and no layers of torch, so code that initialises or converts layers by type,
    such as the ``init_weights`` of many backbones, ignores it.
    """


def base_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """``named_parameters`` without those of injected modules."""
    inside = {id(value) for part in module.modules() if isinstance(part, Injected) for value in part.parameters()}
    return ((name, value) for name, value in module.named_parameters() if id(value) not in inside)
