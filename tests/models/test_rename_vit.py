"""Renamed weights give the same features."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain', reason='mmpretrain is not installed on this stack')

from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmgps.models.convert import mmpretrain_names

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(embed_dims=16, num_layers=2, num_heads=2)
TINY = dict(embed_dims=192, num_layers=12, num_heads=3)


def of_mmseg(sizes: dict, side: int) -> nn.Module:
    init_default_scope('mmseg')
    options = dict(patch_bias=True, final_norm=True, output_cls_token=True, with_cls_token=True)
    model = MODELS.build(
        dict(type='VisionTransformer', img_size=(side, side), patch_size=16, mlp_ratio=4, **sizes, **options)
    )
    model.eval()  # which returns nothing, here and below
    return model


def of_mmpretrain(sizes: dict, side: int) -> nn.Module:
    init_default_scope('mmpretrain')
    arch = dict(sizes, feedforward_channels=4 * sizes['embed_dims'])
    model = MODELS.build(dict(type='VisionTransformer', arch=arch, img_size=side, patch_size=16))
    model.eval()
    return model


@torch.no_grad()
def assert_same_features(theirs: nn.Module, ours: nn.Module, image: torch.Tensor) -> None:
    token = theirs(image)[-1][-1]
    torch.testing.assert_close(ours(image)[-1], token.flatten(1), rtol=1e-4, atol=1e-4)
    assert token.std() > 0.1


def test_a_small_vit_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = of_mmseg(SMALL, 64), of_mmpretrain(SMALL, 64)
    for value in theirs.parameters():
        nn.init.normal_(value, std=0.3)
    torch.save(theirs.state_dict(), tmp_path / 'mmseg.pth')
    monkeypatch.setattr(sys, 'argv', ['convert_vit.py', str(tmp_path / 'mmseg.pth'), str(tmp_path / 'ours.pth')])
    runpy.run_path(str(ROOT / 'tools/convert_vit.py'), run_name='__main__')
    ours.load_state_dict(torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict'])
    assert_same_features(theirs, ours, torch.randn(2, 3, 64, 64))
    with pytest.raises(ValueError, match='weights of mmpretrain need no renaming'):
        mmpretrain_names(ours.state_dict())


def test_the_real_deit_tiny(real_data: Path) -> None:
    state = torch.load(real_data / 'deit_tiny_mmseg.pth', weights_only=True)
    state = state.get('state_dict', state)
    theirs, ours = of_mmseg(TINY, 224), of_mmpretrain(TINY, 224)
    theirs.load_state_dict(state)
    ours.load_state_dict(mmpretrain_names(state))
    assert_same_features(theirs, ours, torch.randn(1, 3, 224, 224))


def test_the_names_of_mobilenetv2_are_those_of_mmpretrain(real_data: Path) -> None:
    state = torch.load(real_data / 'mobilenetv2_onnxzoo_bnfolded_mmseg.pth', weights_only=True)
    init_default_scope('mmpretrain')
    MODELS.build(dict(type='MobileNetV2')).load_state_dict(state.get('state_dict', state))
