"""Weights that a module outside of the backbone owns too."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def check_owners(model: nn.Module, backbone: nn.Module, weights: Iterable[nn.Parameter]) -> None:
    """Make sure that each of ``weights`` is owned within ``backbone`` alone.

    Others would miss the part of their gradient that comes from outside.

    Args:
        model: The whole of it.
        backbone: Its part that is tuned.
        weights: Those whose chosen connections are parameters of their own.

    Raises:
        ValueError: Names both owners.
    """
    inside, replaced = set(backbone.modules()), {id(weight) for weight in weights}
    names: dict[int, str] = {}
    for path, module in sorted(model.named_modules(), key=lambda item: item[1] not in inside):
        for name, value in module.named_parameters(path, recurse=False):
            if id(value) not in replaced:
                continue
            if module not in inside:
                raise ValueError(
                    f'{names[id(value)]} is the same parameter as {name}, outside of the backbone, and would miss the '
                    "part of its gradient from there; set sparse=dict(type='mmgps.MaskedTraining') of the hook"
                )
            names.setdefault(id(value), name)
