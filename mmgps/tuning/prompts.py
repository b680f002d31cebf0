"""Prompt tokens, and how they enter and leave the layers of a plain ViT."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.rewiring import Injected, OwnForward

KEY = 'prompt'


class Prompts(Injected):
    """Prompt tokens of one layer, which stand between the class tokens and those of the picture.

    Args:
        tokens: Their first numbers, ``[1, prompts, width]``.
        after: Class tokens before them.
        carried: Whether they go on into the next layer instead of ending with this one.
    """

    def __init__(self, tokens: Tensor, after: int = 0, carried: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens)
        self.after, self.carried = after, carried

    def enter(self, x: Tensor) -> Tensor:
        """``x`` ``[batch, tokens, width]`` with the prompts in it."""
        return _inserted(x, self.tokens.to(x.dtype).expand(x.shape[0], -1, -1), self.after)

    def leave(self, y: Tensor) -> Tensor:
        """``y`` without the prompts: whatever follows the layer sees the base's tokens alone."""
        return _taken(y, self.after, self.tokens.shape[1], self.carried)


class CarriedPrompts(Injected):
    """The prompts that a former layer put out, on their way through this one. Has no numbers of its own.

    Args:
        count: Prompts.
        after: Class tokens before them.
    """

    def __init__(self, count: int, after: int) -> None:
        super().__init__()
        self.count, self.after = count, after

    def enter(self, x: Tensor) -> Tensor:
        prompts = getattr(x, KEY, None)
        if prompts is None:
            raise RuntimeError(
                'the prompts did not reach this layer: something stands between it and the layer before; use vpt-deep'
            )
        return _inserted(x, prompts, self.after)

    def leave(self, y: Tensor) -> Tensor:
        return _taken(y, self.after, self.count, True)


def attach_prompts(layer: nn.Module, prompts: Prompts | CarriedPrompts) -> None:
    """Let ``prompts`` take part in ``layer``, whose first argument and result are tokens."""
    layer.register_forward_pre_hook(enter_prompts)
    layer.register_forward_hook(leave_prompts)
    layer.add_module(KEY, prompts)


def prompts_of(layer: nn.Module) -> Prompts | CarriedPrompts:
    """What was attached to ``layer``."""
    found = layer.get_submodule(KEY)
    assert isinstance(found, Prompts | CarriedPrompts)
    return found


def _inserted(x: Tensor, prompts: Tensor, after: int) -> Tensor:
    return torch.cat([x[:, :after], prompts, x[:, after:]], 1)


def _taken(y: Tensor, after: int, count: int, carried: bool) -> Tensor:
    rest = torch.cat([y[:, :after], y[:, after + count :]], 1)
    if carried:
        setattr(rest, KEY, y[:, after : after + count])
    return rest


def enter_prompts(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook of every layer with prompts."""
    return (prompts_of(layer).enter(args[0]), *args[1:])


def leave_prompts(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Forward hook of every layer with prompts."""
    return prompts_of(layer).leave(output)


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
