"""The part of a model that is tuned."""

from __future__ import annotations

from torch import nn

from mmgps.utils.names import nearest


def find_backbone(model: nn.Module, target: str) -> nn.Module:
    """The submodule at path ``target``.

    Raises:
        ValueError: Names the nearest paths.
    """
    modules = dict(model.named_modules())
    if not target or target not in modules:
        top = ', '.join(name for name, _ in model.named_children())
        near = nearest(target, filter(None, modules), alike=0.5) or top
        raise ValueError(
            f'target {target!r} is no module of {type(model).__name__}; nearest: {near}; '
            'set target of the hook to the path of the backbone'
        )
    return modules[target]
