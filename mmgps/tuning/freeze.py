"""Freeze what a selection does not train."""

from __future__ import annotations

from torch import nn

from mmgps.selection import Selection, SelectionMismatchError
from mmgps.sparse import guard


def freeze_unselected(backbone: nn.Module, selection: Selection) -> list[nn.Parameter]:
    """Set ``requires_grad`` of every parameter of ``backbone`` to whether the selection trains some of it.

    Until a :class:`SparseTraining` starts, an optimizer that steps a weight with selected connections raises an error.

    Returns:
        The parameters that are frozen as a whole.

    Raises:
        SelectionMismatchError: If the selection was made for another architecture; nothing is changed then.
    """
    partly = {parameter.name: parameter.value for parameter, _ in selection.resolve(backbone)}
    trained = {*partly, *selection.whole}
    guard(partly.values())
    frozen = []
    for name, value in backbone.named_parameters():
        value.requires_grad_(name in trained)
        if name not in trained:
            frozen.append(value)
    return frozen


def check_trainable(backbone: nn.Module, selection: Selection) -> None:
    """Make sure that ``selection`` trains nothing of ``backbone`` that the user froze.

    Raises:
        SelectionMismatchError: Names what is frozen.
    """
    trained = {*selection.connections, *selection.whole}
    frozen = [name for name, value in backbone.named_parameters() if name in trained and not value.requires_grad]
    if frozen:
        raise SelectionMismatchError(
            f'the selection trains {len(frozen)} parameters that {type(backbone).__name__} was built with frozen: '
            f'{", ".join(frozen)}; select anew, or build the backbone as it was when the selection was made '
            '(frozen_stages and the like)'
        )
