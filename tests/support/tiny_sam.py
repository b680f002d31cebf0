"""A small segmentor like SAM."""

from __future__ import annotations

from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmgps.utils.requirements import require

require('mmseg')

TINY = dict(embed_dims=16, depth=2, num_heads=2, global_blocks=(1,))


def sam_model(arch: dict | str = TINY, img_size: int = 64, **changes: Any) -> dict:
    """Return the config of a segmentor; ``changes`` replace whole keys."""
    preprocessor = dict(
        type='SegDataPreProcessor', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], size=(64, 64), seg_pad_val=255
    )
    return {
        'type': 'EncoderDecoder',
        'data_preprocessor': preprocessor,
        'backbone': dict(type='mmgps.SAMImageEncoder', arch=arch, img_size=img_size),
        'decode_head': dict(type='mmgps.SAMMaskHead'),
        'test_cfg': dict(mode='whole'),
        **changes,
    }


def build_sam(*args: Any, **changes: Any) -> nn.Module:
    init_default_scope('mmseg')
    return MODELS.build(ConfigDict(sam_model(*args, **changes)))
