"""Visual prompt tuning (Jia et al., ECCV 2022)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mmgps.selection import Role, describe

from .injection import InjectionMethod, generator_for
from .lora import positive
from .prompts import KEY, CarriedPrompts, Prompts, attach_prompts, attach_window_prompts
from .sites import InjectionError

# Layers that take and give ``[batch, tokens, width]``, and Swin's blocks with their window attentions. By exact type: a
# class that derives from one of them may compute otherwise.
LAYERS = {
    'mmseg.models.backbones.vit.TransformerEncoderLayer',
    'mmpretrain.models.backbones.vision_transformer.TransformerEncoderLayer',
}
BLOCKS = {'mmseg.models.backbones.swin.SwinBlock', 'mmpretrain.models.backbones.swin_transformer.SwinBlock'}
WINDOWS = {'mmseg.models.backbones.swin.WindowMSA', 'mmpretrain.models.utils.attention.WindowMSA'}


class VPTDeep(InjectionMethod):
    """New prompt tokens in every layer, after the class token; in Swin, in every window of every block.

    Only the prompts of the layer itself are in it: those of the layer before are taken away. What leaves a layer has
    the base's tokens alone, so heads and taps see what they know.

    Args:
        tokens: Prompts of a layer.

    Raises:
        ValueError: For less than one.
    """

    name = 'vpt-deep'

    def __init__(self, tokens: int = 10) -> None:
        self.tokens = positive('tokens', tokens)

    def settings(self) -> dict[str, object]:
        return {'tokens': self.tokens}

    def put_in_place(self, backbone: nn.Module) -> None:
        layers, blocks = find(backbone, LAYERS), find(backbone, BLOCKS)
        known = all(kind_of(block.attn.w_msa) in WINDOWS for block in blocks.values())
        if not layers and not (blocks and known):
            raise refused(self.name, backbone, 'a plain ViT or Swin of mmseg or MMPretrain')
        for path, layer in layers.items():
            first = first_tokens(backbone, f'{path}.{KEY}', self.tokens, layer.norm1)
            attach_prompts(layer, Prompts(first, class_tokens(backbone)))
        for path, block in blocks.items():
            first = first_tokens(backbone, f'{path}.attn.w_msa.{KEY}', self.tokens, block.norm1)
            attach_window_prompts(block, Prompts(first))


class VPTShallow(InjectionMethod):
    """Prompt tokens after the class token of the first layer, which go on through all layers of a plain ViT.

    Args:
        tokens: Prompts.

    Raises:
        ValueError: For less than one.
    """

    name = 'vpt-shallow'

    def __init__(self, tokens: int = 10) -> None:
        self.tokens = positive('tokens', tokens)

    def settings(self) -> dict[str, object]:
        return {'tokens': self.tokens}

    def put_in_place(self, backbone: nn.Module) -> None:
        layers = find(backbone, LAYERS)
        if not layers:
            raise refused(self.name, backbone, 'a plain ViT of mmseg or MMPretrain; Swin merges tokens, use vpt-deep')
        (path, layer), *others = layers.items()
        first = first_tokens(backbone, f'{path}.{KEY}', self.tokens, layer.norm1)
        attach_prompts(layer, Prompts(first, class_tokens(backbone), carried=True))
        for _, layer in others:
            attach_prompts(layer, CarriedPrompts(self.tokens, class_tokens(backbone)))


def kind_of(module: nn.Module) -> str:
    return f'{type(module).__module__}.{type(module).__qualname__}'


def find(backbone: nn.Module, kinds: set[str]) -> dict[str, Any]:
    """Modules whose type is one of ``kinds`` and of which the user did not freeze all, by path."""
    return {
        path: module
        for path, module in backbone.named_modules()
        if kind_of(module) in kinds and any(value.requires_grad for value in module.parameters())
    }


def class_tokens(backbone: Any) -> int:
    """Tokens of a plain ViT before those of the picture."""
    if not getattr(backbone, 'with_cls_token', True) or backbone.cls_token is None:
        return 0
    return int(getattr(backbone, 'num_extra_tokens', 1))


def first_tokens(backbone: nn.Module, name: str, count: int, norm: Any) -> Tensor:
    """First numbers ``[1, count, width]`` of the prompts ``name``.

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
