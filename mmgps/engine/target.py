"""The part of a model that is tuned."""

from __future__ import annotations

from difflib import get_close_matches

from torch import nn


def find_backbone(model: nn.Module, target: str) -> nn.Module:
    """The submodule at path ``target``.

    Raises:
        ValueError: Names the nearest paths.
    """
    modules = dict(model.named_modules())
    if not target or target not in modules:
        top = [name for name, _ in model.named_children()]
        near = get_close_matches(target, [name for name in modules if name], 3, 0.5) or top
        raise ValueError(
            f'target {target!r} is no module of {type(model).__name__}; nearest: {", ".join(near)}; '
            'set target of the hook to the path of the backbone'
        )
    return modules[target]
