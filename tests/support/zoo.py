"""Configs and backbones of the installed model zoo."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import mmseg
import pytest
import torch
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
    """Build the backbone of a zoo config at its full size, with random weights."""
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


@contextmanager
def without_memory() -> Iterator[None]:
    """Build on the meta device, except for the rates of stochastic depth, which builders read off a tensor."""
    original = torch.linspace
    on_cpu = mock.patch.object(torch, 'linspace', lambda *a, **options: original(*a, **{**options, 'device': 'cpu'}))
    with on_cpu, torch.device('meta'):
        yield
