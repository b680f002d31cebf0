"""Configs of the installed model zoo, which nobody here wrote."""

from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmgps.utils.requirements import require

require('mmseg')

BACKBONES = {
    'vit': 'vit/vit_deit-s16_upernet_8xb2-160k_ade20k-512x512.py',
    'swin': 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    'convnext': 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
    'mit': 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'resnet': 'pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    'mobilenetv2': 'mobilenet_v2/mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024.py',
}


def zoo_config(path: str) -> Config:
    return Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs' / path)


def zoo_backbone(name: str) -> nn.Module:
    """The backbone of a zoo config, at its own size, with random weights."""
    if name == 'convnext':
        pytest.importorskip('mmpretrain')
    cfg = zoo_config(BACKBONES[name])
    init_default_scope('mmseg')
    backbone = cfg.model.backbone
    backbone.pop('init_cfg', None)
    backbone.pop('pretrained', None)
    if 'norm_cfg' in backbone and backbone.norm_cfg.type == 'SyncBN':
        backbone.norm_cfg.type = 'BN'
    return MODELS.build(backbone)
