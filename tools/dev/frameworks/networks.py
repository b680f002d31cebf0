"""Small networks of timm, transformers and torchvision with random weights, built without a download.

Each entry names a class or a timm model, its arguments, and its kind of input.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmgps.utils.requirements import declare_missing_operators

declare_missing_operators()  # before torchvision, which timm and transformers import too


@dataclass(frozen=True)
class Found:
    """A class or function by its path below the package of models, or the result of its call with ``arguments``."""

    path: str
    arguments: tuple[Any, ...] | dict[str, Any] | None = None


_VIT = dict(embed_dim=24, depth=2, num_heads=2)
_FOUR = dict(depths=(1, 1, 1, 1))
_MIXER = dict(type='mlp_mixer.MlpMixer', num_blocks=2, embed_dim=16, img_size=32, size=32)

# Models of timm and arguments that make them small. ``size`` is the side of the images; ``type`` names a class of
# ``timm.models`` if the model's own function does not take these arguments.
TIMM: dict[str, dict[str, Any]] = {
    'aimv2_large_patch14_224': dict(**_VIT, img_size=28, size=28),
    'beit_base_patch16_224': dict(**_VIT, img_size=32, size=32),
    'cait_xxs24_224': dict(**_VIT, img_size=32, size=32),
    'caformer_s18': dict(type='metaformer.MetaFormer', dims=(8, 16, 16, 32), **_FOUR, size=64),
    'coat_tiny': dict(embed_dims=(16,) * 4, serial_depths=(1, 1, 1, 1), parallel_depth=1, num_heads=8, img_size=64,
                    size=64),
    'coatnet_nano_rw_224': dict(embed_dim=(32, 32, 32, 64), stem_width=(8, 16), img_size=64, **_FOUR, size=64),
    'convit_tiny': dict(embed_dim=6, depth=3, num_heads=2, local_up_to_layer=2, img_size=32, size=32),
    'convmixer_768_32': dict(type='convmixer.ConvMixer', dim=16, depth=2, size=32),
    'convnext_atto': dict(dims=(8, 8, 16, 16), **_FOUR, size=64),
    'convnextv2_atto': dict(dims=(8, 8, 16, 16), **_FOUR, size=64),
    'crossvit_9_240': dict(size=240, embed_dim=(16, 32), depth=((1, 2, 0),), num_heads=(2, 2)),
    'davit_tiny': dict(depths=(1, 1), embed_dims=(16, 32), num_heads=(2, 2), size=64),
    'deit3_small_patch16_224': dict(**_VIT, img_size=32, size=32),
    'deit_tiny_distilled_patch16_224': dict(**_VIT, img_size=32, size=32),
    'densenet121': dict(growth_rate=4, block_config=(2, 2, 2, 2), size=64),
    'dla46x_c': dict(size=64),
    'eca_halonext26ts': dict(size=256),
    'edgenext_xx_small': dict(**_FOUR, size=64),
    'efficientformer_l1': dict(depths=(1, 1, 1, 2), embed_dims=(8, 16, 24, 32)),
    'efficientformerv2_s0': dict(depths=(1, 1, 1, 2), embed_dims=(8, 8, 16, 16), img_size=64, size=64),
    'efficientvim_m1': dict(size=64),
    'efficientvit_b0': dict(size=64),
    'efficientvit_m0': dict(img_size=64, size=64),
    'eva02_tiny_patch14_224': dict(**_VIT, img_size=28, size=28),
    'fastvit_t8': dict(layers=(1, 1, 1, 1), embed_dims=(8, 16, 16, 16), size=64),
    'focalnet_tiny_srf': dict(type='focalnet.FocalNet', depths=(1, 1), embed_dim=16, size=64),
    'gcvit_xxtiny': dict(type='gcvit.GlobalContextVit', embed_dim=8, img_size=224, window_ratio=(32, 32, 16, 32),
                         num_heads=(1, 2, 2, 4), **_FOUR),
    'ghostnet_050': dict(size=64),
    'gmlp_ti16_224': dict(_MIXER, block_layer=Found('mlp_mixer.SpatialGatingBlock'),
                    mlp_layer=Found('mlp_mixer.GatedMlp'), mlp_ratio=4),
    'hiera_tiny_224': dict(embed_dim=16, stages=(1, 1, 1, 1), num_heads=1, img_size=64, size=64),
    'hgnetv2_b0': dict(size=64),
    'iformer_t': dict(size=64),
    'inception_next_atto': dict(dims=(8, 16, 16, 32), **_FOUR, size=64),
    'lambda_resnet26rpt_256': dict(size=64, img_size=64),
    'levit_128s': dict(embed_dim=(16,) * 3, depth=(1, 1, 1), key_dim=8, num_heads=(2, 2, 2), img_size=64, size=64),
    'mixer_s32_224': dict(_MIXER),
    'mobilenetv3_small_050': dict(size=64),
    'mobileone_s0': dict(size=64),
    'mobilevit_xxs': dict(size=64),
    'mvitv2_tiny': dict(type='mvitv2.MultiScaleVit', cfg=Found('mvitv2.MultiScaleVitCfg', dict(depths=(1, 1),
                    embed_dim=16)), img_size=64, size=64),
    'nest_tiny': dict(type='nest.Nest', embed_dims=(16, 32, 32), num_heads=(1, 2, 2), depths=(1, 1, 1), img_size=64,
                      size=64),
    'pit_ti_224': dict(base_dims=(8, 8, 8), depth=(1, 1, 1), heads=(1, 2, 4), img_size=64, size=64),
    'poolformer_s12': dict(type='metaformer.MetaFormer', dims=(8, 16, 16, 32), token_mixers=Found('metaformer.Pooling'),
                           norm_layers=Found('metaformer.GroupNorm1'), **_FOUR, size=64),
    'pvt_v2_b0': dict(embed_dims=(8, 16, 16, 32), num_heads=(1, 2, 2, 4), **_FOUR, size=64),
    'regnetx_002': dict(size=64),
    'resmlp_12_224': dict(_MIXER, block_layer=Found('mlp_mixer.ResBlock'), norm_layer=Found('mlp_mixer.Affine'),
                    mlp_ratio=4),
    'resnetv2_50x1_bit': dict(type='resnetv2.ResNetV2', layers=(1, 1, 1, 1), channels=(128,) * 4, stem_chs=32,
                              conv_layer=Found('resnetv2.StdConv2d'), size=64),
    'samvit_base_patch16_224': dict(**_VIT, img_size=64, global_attn_indexes=(1,), window_size=2, neck_chans=16,
                    size=64),
    'sebotnet33ts_256': dict(size=64, img_size=64),
    'swiftformer_xs': dict(layers=(1, 1, 1, 1), embed_dims=(8, 16, 16, 32), size=64),
    'swin_tiny_patch4_window7_224': dict(depths=(1, 2), embed_dim=16, num_heads=(1, 2), img_size=56, size=56),
    'swinv2_cr_tiny_224': dict(depths=(1, 2), embed_dim=16, num_heads=(1, 2), img_size=56, size=56),
    'swinv2_tiny_window8_256': dict(depths=(1, 2), embed_dim=16, num_heads=(1, 2), img_size=64, size=64),
    'test_efficientnet_evos': dict(size=64),
    'test_mambaout': dict(size=64),
    'test_maxvit': dict(size=64, img_size=64),
    'test_nfnet': dict(size=64),
    'test_resnet': dict(size=64),
    'test_vit': dict(size=32, img_size=32),
    'tiny_vit_5m_224': dict(embed_dims=(16, 16, 32, 32), num_heads=(1, 1, 2, 2), **_FOUR),
    'tnt_s_patch16_224': dict(embed_dim=24, inner_dim=8, depth=2, num_heads_outer=2, num_heads_inner=2, img_size=32,
                              size=32),
    'twins_svt_small': dict(embed_dims=(16, 16, 32, 32), num_heads=(1, 2, 2, 2), wss=(2, 2, 2, 2), img_size=64, **_FOUR,
                            size=64),
    'visformer_tiny': dict(embed_dim=48, init_channels=8, depth=(1, 1, 1), num_heads=2, img_size=64, size=64),
    'vit_huge_plus_patch16_dinov3_qkvb': dict(**_VIT, img_size=32, size=32),
    'vit_relpos_small_patch16_224': dict(**_VIT, img_size=32, size=32),
    'vit_tiny_r_s16_p8_224': dict(**_VIT, img_size=64, size=64),
    'volo_d1_224': dict(type='volo.VOLO', layers=(1, 1, 1, 1), embed_dims=(16, 32, 32, 32), num_heads=(2, 2, 2, 2),
                        img_size=64, size=64),
    'xcit_nano_12_p8_224': dict(embed_dim=16, depth=1, num_heads=2, img_size=32, size=32),
}  # fmt: skip

_WIDTH = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
_IMAGE = dict(**_WIDTH, image_size=32, patch_size=8)
_TEXT = dict(**_WIDTH, vocab_size=40, max_position_embeddings=32)
_D = dict(d_model=16, num_layers=2, num_heads=2, d_kv=8, d_ff=24, vocab_size=40)

# Models of transformers, the arguments of their configurations, and their kind of input.
TRANSFORMERS: dict[str, tuple[dict[str, Any], str]] = {
    'ViTModel': (_IMAGE, 'image'),
    'DeiTModel': (_IMAGE, 'image'),
    'BeitModel': (dict(**_IMAGE, use_relative_position_bias=True), 'image'),
    'Data2VecVisionModel': (dict(**_IMAGE, use_shared_relative_position_bias=True), 'image'),
    'Dinov2Model': (_IMAGE, 'image'),
    'DINOv3ViTModel': (_IMAGE, 'image'),
    'CLIPVisionModel': (_IMAGE, 'image'),
    'SiglipVisionModel': (_IMAGE, 'image'),
    'SwinModel': (dict(image_size=32, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4),
                    'image'),
    'Swinv2Model': (dict(image_size=32, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4),
                    'image'),
    'ConvNextModel': (dict(hidden_sizes=(8, 8, 16, 16), depths=(1, 1, 1, 1)), 'image'),
    'ConvNextV2Model': (dict(hidden_sizes=(8, 8, 16, 16), depths=(1, 1, 1, 1)), 'image'),
    'SegformerModel': (dict(hidden_sizes=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_attention_heads=(1, 1, 2, 2)),
                    'image'),
    'PvtV2Model': (dict(hidden_sizes=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_attention_heads=(1, 1, 2, 2)), 'image'),
    'PoolFormerModel': (dict(hidden_sizes=(8, 8, 16, 16), depths=(1, 1, 1, 1)), 'image'),
    'ResNetModel': (dict(embedding_size=8, hidden_sizes=(8, 8, 16, 16), depths=(1, 1, 1, 1)), 'image'),
    'SamVisionModel': (dict(**_WIDTH, image_size=32, patch_size=8, window_size=2, global_attn_indexes=(1,),
                            output_channels=8, mlp_dim=24), 'image'),
    'VitDetModel': (dict(**{**_IMAGE, 'intermediate_size': 24}, use_relative_position_embeddings=True, window_size=2,
                         window_block_indices=(0,)), 'image'),
    'BertModel': (_TEXT, 'text'),
    'DebertaModel': (dict(**_TEXT, relative_attention=True, pos_att_type=['c2p', 'p2c']), 'text'),
    'MPNetModel': (_TEXT, 'text'),
    'GPT2Model': (dict(n_embd=16, n_layer=2, n_head=2, n_positions=32, vocab_size=40), 'text'),
    'LlamaModel': (dict(**_TEXT, num_key_value_heads=1), 'text'),
    'GemmaModel': (dict(**_TEXT, num_key_value_heads=1, head_dim=8), 'text'),
    'GPTNeoXModel': (_TEXT, 'text'),
    'BloomModel': (dict(hidden_size=16, n_layer=2, n_head=2, vocab_size=40), 'text'),
    'T5EncoderModel': (_D, 'text'),
    'MambaModel': (dict(hidden_size=16, num_hidden_layers=2, state_size=4, vocab_size=40), 'text'),
    'Mamba2Model': (dict(hidden_size=16, num_hidden_layers=2, state_size=4, num_heads=4, head_dim=8, n_groups=1,
                         vocab_size=40, chunk_size=4), 'text'),
    'MixtralModel': (dict(**_TEXT, num_key_value_heads=1, num_local_experts=2, experts_implementation='eager'), 'text'),
    'Wav2Vec2Model': (dict(**_WIDTH, conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3),
                    num_feat_extract_layers=2,
                           num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, vocab_size=40), 'sound'),
}  # fmt: skip

# Classes or functions of ``torchvision.models``, their arguments, and the shape of their input.
TORCHVISION: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    'resnet18': (dict(width_per_group=64), (3, 64, 64)),
    'mobilenet_v3_small': ({}, (3, 64, 64)),
    'efficientnet_b0': (dict(stochastic_depth_prob=0.0), (3, 64, 64)),
    'regnet_y_400mf': ({}, (3, 64, 64)),
    'shufflenet_v2_x0_5': ({}, (3, 64, 64)),
    'densenet.DenseNet': (dict(growth_rate=4, block_config=(2, 2), num_init_features=8), (3, 64, 64)),
    'vision_transformer.VisionTransformer': (
        dict(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24), (3, 32, 32)),
    'swin_transformer.SwinTransformer': (
        dict(patch_size=[4, 4], embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=[4, 4]), (3, 64, 64)),
    'swin_transformer.SwinTransformer, version 2': (
        dict(patch_size=[4, 4], embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=[4, 4],
             block=Found('swin_transformer.SwinTransformerBlockV2'),
             downsample_layer=Found('swin_transformer.PatchMergingV2')), (3, 64, 64)),
    'convnext.ConvNeXt': (dict(block_setting=[Found('convnext.CNBlockConfig', (8, 16, 1)),
                                            Found('convnext.CNBlockConfig', (16, None, 1))]), (3, 32, 32)),
    'maxvit.MaxVit': (
        dict(input_size=(64, 64), stem_channels=8, partition_size=4, block_channels=[16, 32], block_layers=[1, 1],
             head_dim=8, stochastic_depth_prob=0.0), (3, 64, 64)),
    'video.swin_transformer.SwinTransformer3d': (
        dict(patch_size=[2, 4, 4], embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=[2, 4, 4]), (3, 4, 32,
                    32)),
    'video.mvit.MViT': (
        dict(spatial_size=(32, 32), temporal_size=4, residual_pool=True, residual_with_cls_embed=False,
             rel_pos_embed=True, proj_after_attn=True,
             block_setting=[Found('video.mvit.MSBlockConfig', (1, 16, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2])),
                            Found('video.mvit.MSBlockConfig', (2, 16, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2,
                    2]))]),
        (3, 4, 32, 32)),
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a network in float64 and a batch of two inputs, by keyword."""
    torch.manual_seed(0)
    if name in TIMM:
        network, inputs = _timm(name, dict(TIMM[name]))
    elif name in TRANSFORMERS:
        network, inputs = _transformers(name, *TRANSFORMERS[name])
    else:
        network, inputs = _torchvision(name, *TORCHVISION[name])
    generator = torch.Generator().manual_seed(1)
    for value in network.parameters():  # gains of zero would block all gradients behind them
        if value.is_floating_point():
            value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return network.double(), inputs


def _timm(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Tensor]]:
    import timm

    size, kind = arguments.pop('size', 224), arguments.pop('type', None)
    if kind is None:
        network = timm.create_model(name, num_classes=0, **arguments)
    else:
        network = _made('timm.models', Found(kind, dict(num_classes=0, **arguments)))
    return network, {'x': torch.randn(2, 3, size, size).double()}


def _transformers(name: str, arguments: dict[str, Any], reads: str) -> tuple[nn.Module, dict[str, Tensor]]:
    import transformers

    model = getattr(transformers, name)
    network = model(model.config_class(**arguments))
    size = arguments.get('image_size', 64)
    inputs = {
        'image': {'pixel_values': torch.randn(2, 3, size, size).double()},
        'text': {'input_ids': torch.randint(3, 40, (2, 8))},
        'sound': {'input_values': torch.randn(2, 400).double()},
    }
    return network, inputs[reads]


def _torchvision(name: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> tuple[nn.Module, dict[str, Tensor]]:
    return _made('torchvision.models', Found(name.split(',')[0], arguments)), {'x': torch.randn(2, *shape).double()}


def _made(package: str, value: Any) -> Any:
    """Look up and build every :class:`Found` within ``value``."""
    if isinstance(value, list):
        return [_made(package, part) for part in value]
    if not isinstance(value, Found):
        return value
    module, _, name = f'{package}.{value.path}'.rpartition('.')
    found, arguments = getattr(importlib.import_module(module), name), value.arguments
    if arguments is None:
        return found
    if isinstance(arguments, tuple):
        return found(*arguments)
    return found(**{key: _made(package, part) for key, part in arguments.items()})


def outputs(network: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Return all floating-point outputs of ``network``."""
    given = network(*inputs.values()) if 'x' in inputs else network(**inputs)
    return [*_tensors(given)]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() and value.requires_grad else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for part in parts for tensor in _tensors(part)]
