"""Operations within ``nn.MultiheadAttention``, which computes its projections without calling a layer.

Torch's own code of the attention runs, with what it calls ``linear`` bound anew, as compact training does it.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.sparse.attention import ProjectingForward

from .operations import operations_of
from .sites import InjectionError


class TunedAttention(ProjectingForward):
    """The forward of one ``nn.MultiheadAttention`` that has operations behind its projections.

    A copy of the module gets one of its own.

    Args:
        owner: The module, with one packed input projection.
    """

    injected = True

    def __init__(self, owner: nn.MultiheadAttention) -> None:
        # the fast inference path, which knows nothing of operations, asks this
        super().__init__(owner, _check_arg_device=lambda _: False)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._owner,))

    def __call__(self, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        if query.is_nested:
            raise InjectionError(
                "nn.TransformerEncoder hands a padded batch to its attention as a nested tensor, which only torch's "
                'unchanged attention takes; build the encoder with enable_nested_tensor=False, or merge first'
            )
        return super().__call__(query, *args, **kwargs)

    def project(self, x: Tensor, w: Tensor, b: Tensor | None, start: int) -> Tensor:
        y = F.linear(x, w, b)
        out = w is self._owner.out_proj.weight
        rows = slice(None) if out else slice(start, start + len(w))
        for operation in operations_of(self._owner.out_proj if out else self._owner):
            y = operation(x, y, rows, -1)
        return y
