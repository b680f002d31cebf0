"""Compact training equals masked training for small versions of SAM and of the installed zoo's backbones."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from mmengine.registry import MODELS, init_default_scope
from tiny_sam import build_sam
from training_pair import ROUTES, assert_equal_training, prepare, random_selection, take_routes_in_turn, uneven

from mmgps.sparse import CompactTraining
from mmgps.tuning import GPS

BN = dict(type='BN')
HR_STAGE = dict(num_modules=1, block='BASIC')
BACKBONES = {
    'vit': dict(
        type='VisionTransformer', img_size=32, patch_size=8, embed_dims=16, num_layers=2, num_heads=2, with_cp=True,
    ),
    'swin': dict(
        type='SwinTransformer', embed_dims=8, depths=(2, 2), num_heads=(2, 4), strides=(4, 2), window_size=4,
        out_indices=(0, 1), pretrain_img_size=32,
    ),
    'mit': dict(
        type='MixVisionTransformer', embed_dims=8, num_stages=2, num_layers=(1, 1), num_heads=(1, 2),
        patch_sizes=(7, 3), strides=(4, 2), sr_ratios=(2, 1), out_indices=(0, 1),
    ),
    'convnext': dict(
        type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[4, 8, 8, 8]), out_indices=(3,),
        gap_before_final_norm=False, layer_scale_init_value=0.5,
    ),
    'resnet': dict(
        type='ResNetV1c', depth=18, base_channels=8, norm_cfg=BN, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4),
    ),
    'hrnet': dict(
        type='HRNet', norm_cfg=BN, extra=dict(
            stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,), num_channels=(4,)),
            stage2=dict(**HR_STAGE, num_branches=2, num_blocks=(1, 1), num_channels=(4, 8)),
            stage3=dict(**HR_STAGE, num_branches=3, num_blocks=(1, 1, 1), num_channels=(4, 8, 8)),
            stage4=dict(**HR_STAGE, num_branches=4, num_blocks=(1, 1, 1, 1), num_channels=(4, 8, 8, 8)),
        ),
    ),
    'mobilenetv2': dict(type='MobileNetV2', widen_factor=0.25, norm_cfg=BN),
    'mscan': dict(
        type='MSCAN', embed_dims=[4, 8, 8, 8], mlp_ratios=[2, 2, 2, 2], depths=[1, 1, 1, 1], norm_cfg=BN,
        attention_kernel_sizes=[5, [1, 7], [1, 11], [1, 21]], attention_kernel_paddings=[2, [0, 3], [0, 5], [0, 10]],
    ),
    'beit': dict(type='BEiT', img_size=32, patch_size=8, embed_dims=16, num_layers=2, num_heads=2, qv_bias=True),
}  # fmt: skip


SIZES = {'vit': (32, 32), 'beit': (32, 32)}
NETWORKS = (*BACKBONES, 'sam', 'sam-recomputed')


def build(name: str) -> nn.Module:
    if name.startswith('sam'):
        encoder = build_sam().backbone.double()
        encoder.with_cp = name == 'sam-recomputed'
        return encoder
    init_default_scope('mmseg')
    if name == 'convnext':
        pytest.importorskip('mmpretrain.models')
    return MODELS.build(dict(BACKBONES[name])).double()


# Rounding grows through its 52 norms over two images: at ten times this learning rate, masked training itself diverges
# by 0.2 in 20 steps if its images change by 1e-16.
SLOW = ('mobilenetv2',)


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.filterwarnings('ignore:k=2 exceeds the fan-in')
def test_compact_equals_masked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_routes_in_turn(monkeypatch)
    backbone = build(name)
    backbone.train()  # returns nothing for some backbones
    x = torch.randn(2, 3, *SIZES.get(name, (64, 64))).double()

    def loss(network: nn.Module, step: int) -> torch.Tensor:
        return uneven(network(x + 0.01 * step))

    selection = random_selection(backbone, 2)
    assert_equal_training(backbone, selection, loss, optimizer='slow-sgd' if name in SLOW else 'sgd')
    training, _ = prepare(CompactTraining, backbone, selection)
    assert {route.kind for route in training.routes().values()} == {*ROUTES}
    loss(backbone, 0).backward()
    values = training.replacements().values()
    assert sum(bool(value.grad.abs().max() > 1e-6) for value in values) >= 0.9 * len(values)


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.filterwarnings('ignore:k=1 exceeds the fan-in')
def test_every_layer_has_a_route_of_its_own(name: str) -> None:
    """No layer takes the fallback."""
    backbone = build(name)
    selection = random_selection(backbone)
    with CompactTraining(backbone, selection) as training:
        routes, report = training.routes(), training.report()
    assert routes.keys() == selection.connections.keys() == GPS().candidates(backbone).keys()
    assert {route.kind for route in routes.values()} <= {*ROUTES}
    assert all(f'{layer} ' in report for layer in routes)
