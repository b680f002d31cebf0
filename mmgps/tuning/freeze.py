"""Freeze what a selection does not train."""

from __future__ import annotations

from torch import nn

from mmgps.selection import Selection


def freeze_unselected(backbone: nn.Module, selection: Selection) -> list[nn.Parameter]:
    """Set ``requires_grad`` of every parameter of ``backbone`` to whether the selection trains some of it.

    Returns:
        The parameters that are frozen as a whole.

    Raises:
        SelectionMismatchError: If the selection was made for another architecture; nothing is changed then.
    """
    trained = {parameter.name for parameter, _ in selection.resolve(backbone)} | set(selection.whole)
    frozen = []
    for name, value in backbone.named_parameters():
        value.requires_grad_(name in trained)
        if name not in trained:
            frozen.append(value)
    return frozen
