"""Trained numbers of ViT-B/16, compared with the paper's tables."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmpretrain')

from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmgps.engine import METHOD_NAMES, build_method
from mmgps.selection import Role, describe

#: Name and options to the count of trained numbers in ViT-B/16 with 12 blocks of width 768.
COUNTS = [
    ('lora', dict(rank=8), 12 * 8 * (768 + 2304)),
    ('lora', dict(rank=16), 12 * 16 * (768 + 2304)),
    ('lora', dict(rank=8, parts=['qkv', 'proj', 'fc1', 'fc2']), 12 * 8 * (3072 + 1536 + 3840 + 3840)),
    ('adapter', dict(bottleneck=8), 12 * (2 * 8 * 768 + 8 + 768)),
    ('adapter', dict(bottleneck=8, parts=['proj', 'fc2']), 2 * 12 * (2 * 8 * 768 + 8 + 768)),
    ('vpt-shallow', dict(tokens=100), 100 * 768),
    ('vpt-deep', dict(tokens=50), 12 * 50 * 768),
    ('ssf', {}, 205_824),
]


def vit_b() -> nn.Module:
    """A ViT without memory for its numbers."""
    init_default_scope('mmpretrain')
    with torch.device('meta'):
        return MODELS.build(dict(type='VisionTransformer', arch='base', img_size=224, patch_size=16))


@pytest.mark.parametrize(('name', 'options', 'expected'), COUNTS, ids=str)
def test_vit_b(name: str, options: dict, expected: int) -> None:
    backbone = vit_b()
    build_method({**METHOD_NAMES[name], **options}).inject(backbone)
    found = [entry.value.numel() for entry in describe(backbone).values() if entry.role is Role.INJECTED]
    assert sum(found) == expected
