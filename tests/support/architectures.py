"""Small networks of all supported architectures, built by their own classes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch
from mmengine.registry import MODELS, init_default_scope
from tiny_sam import TINY
from torch import Tensor, nn

from mmgps.utils.requirements import require

require('mmseg')

SIDE = 32


def _built(scope: str, **cfg) -> nn.Module:
    init_default_scope(scope)
    torch.manual_seed(1)
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    with torch.no_grad():  # like in a trained network, where no bias is zero and no gain is one
        for value in backbone.parameters():
            if value.dim() == 1:
                value += 0.1 * torch.randn(value.shape)
    return backbone


def vit() -> nn.Module:
    sizes = dict(img_size=(SIDE, SIDE), patch_size=8, embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2)
    return _built('mmseg', type='VisionTransformer', **sizes, out_indices=(0, 1), patch_bias=True, final_norm=True)


def mmpretrain_vit() -> nn.Module:
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    sizes = dict(img_size=SIDE, patch_size=8, out_indices=(0, 1), out_type='featmap')
    return _built('mmpretrain', type='VisionTransformer', arch=arch, **sizes)


def swin() -> nn.Module:
    sizes = dict(embed_dims=8, depths=(2, 1), num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1), window_size=4)
    return _built('mmseg', type='SwinTransformer', pretrain_img_size=SIDE, mlp_ratio=2, drop_path_rate=0.0, **sizes)


def mmpretrain_swin() -> nn.Module:
    arch = dict(embed_dims=8, depths=[2, 1], num_heads=[1, 2])
    sizes = dict(img_size=SIDE, window_size=4, out_indices=(0, 1), drop_path_rate=0.0, pad_small_map=True)
    return _built('mmpretrain', type='SwinTransformer', arch=arch, **sizes)


def convnext() -> nn.Module:
    arch = dict(depths=[1, 1], channels=[8, 16])
    sizes = dict(out_indices=(0, 1), drop_path_rate=0.0, layer_scale_init_value=0.5, gap_before_final_norm=False)
    return _built('mmpretrain', type='ConvNeXt', arch=arch, **sizes)


def resnet() -> nn.Module:
    sizes = dict(depth=18, base_channels=8, stem_channels=8, num_stages=2, out_indices=(0, 1))
    return _built(
        'mmseg', type='ResNet', strides=(1, 2), dilations=(1, 1), norm_eval=True, zero_init_residual=False, **sizes
    )


def sam() -> nn.Module:
    return _built('mmseg', type='mmgps.SAMImageEncoder', arch=TINY, img_size=SIDE, window_size=2, out_channels=16)


def mit() -> nn.Module:
    sizes = dict(embed_dims=8, num_stages=2, num_layers=(1, 1), num_heads=(1, 2), patch_sizes=(7, 3), strides=(4, 2))
    return _built('mmseg', type='MixVisionTransformer', sr_ratios=(2, 1), out_indices=(0, 1), mlp_ratio=2, **sizes)


def mobilenetv2() -> nn.Module:
    return _built('mmseg', type='MobileNetV2', widen_factor=0.25, out_indices=(1, 6), norm_eval=True)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    'vit': vit,
    'mmpretrain-vit': mmpretrain_vit,
    'swin': swin,
    'mmpretrain-swin': mmpretrain_swin,
    'convnext': convnext,
    'resnet': resnet,
    'sam': sam,
    'mit': mit,
    'mobilenetv2': mobilenetv2,
}
OF_MMPRETRAIN = ('mmpretrain-vit', 'mmpretrain-swin', 'convnext')


@cache
def _template(kind: str) -> nn.Module:
    return BUILDERS[kind]()


def build(kind: str) -> nn.Module:
    """Build a network of the architecture ``kind``, always with the same weights."""
    torch.manual_seed(1)
    return copy.deepcopy(_template(kind))


def maps(backbone: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the feature maps of ``backbone`` for ``x``."""
    return list(backbone(x))
