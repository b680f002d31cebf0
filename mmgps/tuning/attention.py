"""Operations within ``nn.MultiheadAttention``, which computes its projections without calling a layer.

Torch's own code of the attention runs, with what it calls ``linear`` bound anew, as compact training does it.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.sparse.attention import attention_code
from mmgps.sparse.forward import OwnForward

from .operations import operations_of


class TunedAttention(OwnForward):
    """The forward of one ``nn.MultiheadAttention`` that has operations behind its projections.

    A copy of the module gets one of its own.

    Args:
        owner: The module, with one packed input projection.
    """

    injected = True

    def __init__(self, owner: nn.MultiheadAttention) -> None:
        super().__init__(owner)
        self._owner: nn.MultiheadAttention = owner
        # the fast inference path, which knows nothing of operations, asks this
        self._forward = attention_code(self._linear, _check_arg_device=lambda _: False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self._owner, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._owner,))

    def _linear(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = F.linear(x, w, b)
        owner, packed = self._owner, self._owner.in_proj_weight
        start, behind = 0, operations_of(owner.out_proj)
        if w is not owner.out_proj.weight:
            assert packed is not None
            start, behind = (w.storage_offset() - packed.storage_offset()) // packed.stride(0), operations_of(owner)
        for operation in behind:
            y = operation(x, y, slice(start, start + len(w)), -1)
        return y
