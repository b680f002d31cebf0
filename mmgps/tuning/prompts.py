"""Prompt tokens, and how they enter and leave the layers of a plain ViT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmgps.selection import Injected

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
