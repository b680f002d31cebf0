"""Modules that a method puts beside those of the base."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


class Injected(nn.Module):
    """Base of what a method adds to a network.

    It is a child of the module that it changes, under a name of its own, so the base keeps its names and shapes. Its
    parameters are plain ones and no child is a layer of torch: what initialises or converts layers by their type,
    as the ``init_weights`` of many backbones do, passes it by.
    """


def base_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """``named_parameters`` without those of injected modules."""
    inside = {id(value) for part in module.modules() if isinstance(part, Injected) for value in part.parameters()}
    return ((name, value) for name, value in module.named_parameters() if id(value) not in inside)
