"""Visual prompt tuning (Jia et al., ECCV 2022)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.architectures import PROMPTED_BLOCKS, PROMPTED_LAYERS, PROMPTED_WINDOWS
from mmgps.rewiring import Injected, OwnForward, type_name
from mmgps.selection import Role, describe

from .base import InjectionMethod, generator_for, positive
from .sites import InjectionError

PROMPT_KEY = 'prompt'


class VPT(InjectionMethod):
    """Base class of the methods that add prompt tokens.

    Args:
        tokens: Number of prompts.

    Raises:
        ValueError: For fewer than one.
    """

    def __init__(self, tokens: int = 10) -> None:
        self.tokens = positive('tokens', tokens)

    def settings(self) -> dict[str, object]:
        return {'tokens': self.tokens}


class VPTDeep(VPT):
    """New prompt tokens in every layer, after the class token; in Swin, in every window of every block.

    A layer contains only its own prompts; those of the layer before are removed. Its output has the tokens of the base
    alone, so heads and taps see what they expect. ``tokens`` counts the prompts of one layer.
    """

    name = 'vpt-deep'

    def put_in_place(self, backbone: nn.Module) -> None:
        layers, blocks = find(backbone, PROMPTED_LAYERS), find(backbone, PROMPTED_BLOCKS)
        known = all(type_name(block.attn.w_msa) in PROMPTED_WINDOWS for block in blocks.values())
        if not layers and not (blocks and known):
            raise refused(self.name, backbone, 'a plain ViT or Swin of mmseg or MMPretrain')
        for path, layer in layers.items():
            first = first_tokens(backbone, f'{path}.{PROMPT_KEY}', self.tokens, layer.norm1)
            attach_prompts(layer, Prompts(first, self.tokens, class_tokens(backbone)))
        for path, block in blocks.items():
            first = first_tokens(backbone, f'{path}.attn.w_msa.{PROMPT_KEY}', self.tokens, block.norm1)
            block.attn.w_msa.add_module(PROMPT_KEY, Prompts(first, self.tokens))
            PromptedWindows(block.attn.w_msa, block.norm1)


class VPTShallow(VPT):
    """Prompt tokens after the class token of the first layer, which go on through all layers of a plain ViT."""

    name = 'vpt-shallow'

    def put_in_place(self, backbone: nn.Module) -> None:
        layers = find(backbone, PROMPTED_LAYERS)
        if not layers:
            raise refused(self.name, backbone, 'a plain ViT of mmseg or MMPretrain; Swin merges tokens, use vpt-deep')
        path, layer = next(iter(layers.items()))
        tokens: Tensor | None = first_tokens(backbone, f'{path}.{PROMPT_KEY}', self.tokens, layer.norm1)
        for layer in layers.values():
            attach_prompts(layer, Prompts(tokens, self.tokens, class_tokens(backbone), carried=True))
            tokens = None


def find(backbone: nn.Module, kinds: set[str]) -> dict[str, Any]:
    """Modules by path whose type is one of ``kinds`` and which the user did not freeze entirely."""
    return {
        path: module
        for path, module in backbone.named_modules()
        if type_name(module) in kinds and any(value.requires_grad for value in module.parameters())
    }


def class_tokens(backbone: Any) -> int:
    """Number of tokens that a plain ViT puts before those of the image."""
    if not getattr(backbone, 'with_cls_token', True) or backbone.cls_token is None:
        return 0
    return int(getattr(backbone, 'num_extra_tokens', 1))


def first_tokens(backbone: nn.Module, name: str, count: int, norm: Any) -> Tensor:
    """Initial numbers ``[1, count, width]`` of the prompts ``name``.

    Uniform in +-sqrt(6 / (fan_in + width)), with the fan-in of the layer that embeds the patches, ``3 p^2``.
    """
    weights = [entry.value for entry in describe(backbone).values() if entry.role is Role.CONNECTION]
    like, width = norm.weight, norm.weight.shape[0]
    bound = math.sqrt(6 / (weights[0][0].numel() + width))
    drawn = torch.empty(1, count, width).uniform_(-bound, bound, generator=generator_for(name))
    return drawn.to(like.device, like.dtype)


def refused(method: str, backbone: nn.Module, wanted: str) -> InjectionError:
    return InjectionError(
        f'{method} needs {wanted}; {type(backbone).__name__} has no layers of that kind that are not frozen'
    )


class Prompts(Injected):
    """Prompt tokens of one layer, between the class tokens and those of the image.

    Args:
        tokens: Their initial numbers, ``[1, prompts, width]``; None if the layer takes over those of the layer before.
        count: Number of prompts.
        after: Number of class tokens before them.
        carried: Whether they continue into the next layer.
    """

    def __init__(self, tokens: Tensor | None, count: int, after: int = 0, carried: bool = False) -> None:
        super().__init__()
        self.tokens = None if tokens is None else nn.Parameter(tokens)
        self.count, self.after, self.carried = count, after, carried

    def enter(self, x: Tensor) -> Tensor:
        """``x`` ``[batch, tokens, width]`` with the prompts inserted."""
        prompts: Tensor | None
        if self.tokens is not None:
            prompts = self.tokens.to(x.dtype).expand(x.shape[0], -1, -1)
        elif (prompts := getattr(x, PROMPT_KEY, None)) is None:
            raise RuntimeError(
                'the prompts did not reach this layer: something stands between it and the layer before; use vpt-deep'
            )
        return torch.cat([x[:, : self.after], prompts, x[:, self.after :]], 1)

    def leave(self, y: Tensor) -> Tensor:
        """``y`` without the prompts: later layers see only the tokens of the base."""
        end = self.after + self.count
        rest = torch.cat([y[:, : self.after], y[:, end:]], 1)
        if self.carried:
            setattr(rest, PROMPT_KEY, y[:, self.after : end])
        return rest


def attach_prompts(layer: nn.Module, prompts: Prompts) -> None:
    """Insert ``prompts`` into ``layer``, whose first argument and result are tokens."""
    layer.register_forward_pre_hook(enter_prompts)
    layer.register_forward_hook(leave_prompts)
    layer.add_module(PROMPT_KEY, prompts)


def enter_prompts(layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook of every layer with prompts."""
    return (layer.get_submodule(PROMPT_KEY).enter(args[0]), *args[1:])


def leave_prompts(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Forward hook of every layer with prompts."""
    rest: Tensor = layer.get_submodule(PROMPT_KEY).leave(output)
    return rest


class PromptedWindows(OwnForward):
    """The forward of a window attention that also attends to the prompts of its block.

    The prompts precede the tokens of every window and pass the first norm of the block. They have no relative position
    and no shift: bias and mask are zero for them. Each block has its own prompts, so their outputs are not computed.

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
        """Map ``[windows, tokens, width]`` to the same shape; ``mask`` is ``[kinds, tokens, tokens]``."""
        owner: Any = self._owner
        prompts = self._norm(owner.get_submodule(PROMPT_KEY).tokens).to(x.dtype)
        count, (windows, tokens, width) = prompts.shape[1], x.shape
        packed = owner.qkv(torch.cat([prompts.expand(windows, -1, -1), x], 1))
        split = packed.view(windows, -1, 3, owner.num_heads, width // owner.num_heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
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
