"""Prompt tokens within the windows of Swin."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.sparse.forward import OwnForward

from .prompts import KEY, Prompts


class PromptedWindows(OwnForward):
    """The forward of a window attention that also attends to the prompts of its block.

    The prompts stand before the tokens of every window, pass the block's first norm like these, and have neither a
    relative position nor a shift: the bias and the mask are zero for them. Each block has prompts of its own, so what
    a block would make of them is not computed.

    Args:
        owner: The window attention of mmseg or MMPretrain.
        norm: The norm before it.
    """

    def __init__(self, owner: nn.Module, norm: nn.Module) -> None:
        super().__init__(owner)
        self._owner, self._norm = owner, norm

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._owner, self._norm))

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As that of the owner: ``[windows, tokens, width]`` to the same, ``mask`` ``[kinds, tokens, tokens]``."""
        owner: Any = self._owner
        prompts = self._norm(owner.get_submodule(KEY).tokens).to(x.dtype)
        count, (windows, tokens, width) = prompts.shape[1], x.shape
        packed = owner.qkv(torch.cat([prompts.expand(windows, -1, -1), x], 1))
        query, key, value = packed.view(windows, -1, 3, owner.num_heads, width // owner.num_heads).permute(
            2, 0, 3, 1, 4
        )
        scores = query[:, :, count:] * owner.scale @ key.transpose(-2, -1)
        scores = scores + F.pad(self._bias(tokens), (count, 0))
        if mask is not None:
            padded = F.pad(mask, (count, 0)).unsqueeze(1)
            scores = (scores.unflatten(0, (-1, len(mask))) + padded).flatten(0, 1)
        weights = owner.attn_drop(owner.softmax(scores))
        output: Tensor = owner.proj_drop(owner.proj((weights @ value).transpose(1, 2).reshape(windows, tokens, width)))
        return output

    def _bias(self, tokens: int) -> Tensor:
        """Relative-position bias, ``[heads, tokens, tokens]``."""
        owner: Any = self._owner
        bias: Tensor = owner.relative_position_bias_table[owner.relative_position_index.view(-1)]
        return bias.view(tokens, tokens, -1).permute(2, 0, 1)


def attach_window_prompts(block: Any, prompts: Prompts) -> None:
    """Let the window attention of a Swin block attend to ``prompts``."""
    attention = block.attn.w_msa
    attention.add_module(KEY, prompts)
    PromptedWindows(attention, block.norm1)
