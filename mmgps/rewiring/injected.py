"""Modules that a method adds beside those of the base."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


class Injected(nn.Module):
    """Base class of the modules that a method adds to a network.

    An injected module is a child of the module that it changes, under a name of its own, so the base keeps its names
    and shapes. It owns plain parameters and no layers of torch: code that initialises or converts layers by type, such
    as the ``init_weights`` of many backbones, ignores it.
    """


def base_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """``named_parameters`` without those of injected modules."""
    inside = {id(value) for part in module.modules() if isinstance(part, Injected) for value in part.parameters()}
    return ((name, value) for name, value in module.named_parameters() if id(value) not in inside)
