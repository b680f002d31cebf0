"""LoRA by peft, and by mmgps without merging."""

import copy

import pytest
import torch

pytest.importorskip('mmseg')

from torch import nn

from mmgps.benchmark import Setup
from mmgps.benchmark.recipes import Lora, UnmergedLora, is_plain_vit
from mmgps.benchmark.setup import Rig

#: Rank 8 in two blocks of width 16 and hidden width 32: packed input projection, output projection, two linear layers.
FACTORS = 2 * 8 * ((16 + 48) + (16 + 16) + (16 + 32) + (32 + 16))


@pytest.fixture(scope='module', autouse=True)
def _peft() -> None:
    pytest.importorskip('peft')


@pytest.mark.parametrize('kind', [Lora, UnmergedLora])
def test_factors_on_every_linear_layer_move_and_nothing_else(kind, setup: Setup) -> None:
    rig = Rig(setup, setup.build(), kind(8))
    head = sum(value.numel() for value in rig.model.decode_head.parameters())
    assert rig.trained == sum(value.numel() for value in rig.values) == head + FACTORS
    before = [value.detach().clone() for value in rig.values]
    batches = setup.batches(2)
    for batch in batches:
        rig.step(copy.deepcopy(batch))
    moved = [not torch.equal(value, old) for value, old in zip(rig.values, before, strict=True)]
    assert moved.count(False) == 0


def test_both_start_at_the_base(setup: Setup) -> None:
    base = setup.build().eval()
    x = torch.randn(2, 3, 32, 32)
    expected = base.backbone(x)[0]
    for kind in (Lora, UnmergedLora):
        tuned = kind(8).tune(copy.deepcopy(base), 'backbone')
        tuned.model.eval()
        assert torch.allclose(tuned.backbone(x)[0], expected, atol=1e-6)


def test_is_plain_vit(setup: Setup) -> None:
    assert is_plain_vit(setup.build().backbone)
    assert not is_plain_vit(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4)))
    assert not is_plain_vit(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.MultiheadAttention(4, 1)))
