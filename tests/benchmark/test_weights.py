"""Where the benchmark says that the weights come from."""

from pathlib import Path

import pytest

pytest.importorskip('mmseg')

from mmengine.config import Config

from mmgps.benchmark import Setup

ROOT = Path(__file__).resolve().parents[2]
PRETRAINED = dict(type='Pretrained', checkpoint='far/base.pth')


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        ('configs/gps_polyp.py', 'sam_vit_b_01ec64.pth'),
        ('configs/gps_polyp_demo.py', 'vit-mini_shapes.pth'),
        ('configs/polyp/gps_deit-tiny_kvasir.py', 'deit_tiny_mmseg.pth'),
    ],
)
def test_of_a_shipped_config(config: str, name: str) -> None:
    assert Setup(Config.fromfile(ROOT / config)).weights() == name


@pytest.mark.parametrize(
    'backbone',
    [
        dict(init_cfg=PRETRAINED),
        dict(init_cfg=dict(type='anything.OfOnesOwn', checkpoint='far/base.pth')),
        dict(init_cfg=[dict(type='Kaiming', layer='Conv2d'), PRETRAINED]),
        dict(type='mmgps.TunedBackbone', backbone=dict(init_cfg=PRETRAINED)),
        dict(pretrained='far/base.pth'),
    ],
)
def test_however_the_file_is_named(backbone: dict) -> None:
    assert Setup(Config(dict(model=dict(init_cfg=None, backbone=backbone)))).weights() == 'base.pth'


def test_without_a_file() -> None:
    model = dict(backbone=dict(init_cfg=dict(type='Normal', layer='Linear'), pretrained=None))
    assert Setup(Config(dict(model=model)), seed=4).weights() == 'random (seed 4), the config names no file'
