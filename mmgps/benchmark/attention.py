"""``nn.MultiheadAttention`` with low-rank additions that are not merged into its weights."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.sparse.attention import attention_code


class LowRank(nn.Module):
    """``scale * b (a x)``.

    Args:
        a: ``[rank, inputs]``.
        b: ``[outputs, rank]``.
        scale: A factor.
    """

    def __init__(self, a: nn.Parameter, b: nn.Parameter, scale: float) -> None:
        super().__init__()
        self.lora_A, self.lora_B, self.scale = a, b, scale

    def forward(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The outputs from ``start`` to ``stop`` for ``x`` of ``[..., inputs]``."""
        return self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B[start:stop])


class LowRankAttention(nn.Module):
    """Torch's own attention code whose linear maps add a low-rank one.

    Args:
        attention: With one packed input projection.
        inputs: Added to its input projection.
        output: Added to its output projection.
    """

    def __init__(self, attention: nn.MultiheadAttention, inputs: LowRank, output: LowRank) -> None:
        super().__init__()
        self.attention, self.inputs, self.output = attention, inputs, output
        self._forward = attention_code(self._linear)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As that of ``nn.MultiheadAttention``."""
        return self._forward(self.attention, *args, **kwargs)

    def _linear(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = F.linear(x, w, b)
        if w is self.attention.out_proj.weight:
            return y + self.output(x, 0, len(w))
        packed = self.attention.in_proj_weight
        start = (w.storage_offset() - packed.storage_offset()) // packed.stride(0)
        return y + self.inputs(x, start, start + len(w))
