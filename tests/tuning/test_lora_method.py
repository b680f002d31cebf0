"""LoRA: merging, initial numbers by the seed, and refused arguments."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmpretrain')

from architectures import build
from torch import nn
from tuned import outputs

from mmgps.tuning import InjectionError, LoRA, merge_operations

ALL = ('qkv', 'proj', 'fc1', 'fc2', 'linear', 'conv')


def randomise(net: nn.Module) -> None:
    """Give the factors numbers that change the output."""
    for name, value in net.named_parameters():
        if 'lora.' in name:
            nn.init.normal_(value, std=0.3)


@pytest.mark.parametrize('kind', ['vit', 'mmpretrain-vit', 'swin', 'mmpretrain-swin', 'convnext', 'resnet'])
def test_every_part_at_once_merges(kind: str) -> None:
    tuned = build(kind)
    LoRA(rank=2, alpha=3, parts=ALL).inject(tuned)
    randomise(tuned)
    tuned.double()
    expected = outputs(tuned)
    merge_operations(tuned)
    for a, b in zip(outputs(tuned), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert list(tuned.state_dict()) == list(build(kind).state_dict())


def test_convolutions_of_every_geometry() -> None:
    layers = [
        nn.Conv1d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (3, 1), dilation=(2, 1), padding='same', bias=False),
        nn.Conv3d(4, 6, 2, stride=(1, 2, 1)),
    ]
    for layer in layers:
        net = nn.Sequential(layer).double()
        LoRA(rank=3, alpha=5).inject(net)
        randomise(net)
        x = torch.randn(2, 4, *[7] * (layer.weight.dim() - 2), dtype=torch.float64)
        expected, before = net(x), layer.weight.detach().clone()
        merge_operations(net)
        torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)
        assert not torch.equal(layer.weight, before)


def test_the_start_follows_from_the_seed_and_draws_nothing() -> None:
    starts = []
    for seed in (3, 3, 4):
        tuned = build('vit')
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        LoRA(rank=2).inject(tuned)
        assert torch.equal(torch.get_rng_state(), before)
        starts.append([value for name, value in tuned.named_parameters() if name.endswith('lora.a')])
    assert all(map(torch.equal, starts[0], starts[1]))
    assert not torch.equal(starts[0][0], starts[2][0])
    assert not torch.equal(starts[0][0], starts[0][1])
    assert starts[0][0].abs().max() <= 16**-0.5


@pytest.mark.parametrize('rank', [0, 1.5, True])
def test_rank(rank: object) -> None:
    with pytest.raises(ValueError, match=f'rank must be an integer of at least 1, got {rank!r}'):
        LoRA(rank=rank)


def test_parts() -> None:
    with pytest.raises(ValueError, match=r"parts names one or more of qkv, .*; got \['q'\]"):
        LoRA(parts='q')
    with pytest.raises(InjectionError, match=r"lora does not support \['norm'\]; it supports qkv"):
        LoRA(parts=['norm'])
    with pytest.raises(
        InjectionError, match=r'lora goes to qkv, and ResNet has no such part that is not frozen; it has'
    ):
        LoRA(parts='qkv').inject(build('resnet'))


def test_what_the_user_froze_gets_no_factors() -> None:
    tuned = build('vit')
    tuned.layers[0].requires_grad_(False)
    LoRA().inject(tuned)
    names = [name for name, _ in tuned.named_parameters() if '.lora.' in name]
    assert names
    assert all(name.startswith('layers.1.') for name in names)


def test_twice_is_refused() -> None:
    tuned = build('vit')
    LoRA().inject(tuned)
    with pytest.raises(InjectionError, match='has injected modules already'):
        LoRA().inject(tuned)


def test_another_method_than_the_one_in_place_is_refused() -> None:
    tuned = build('vit')
    LoRA(rank=4).inject(tuned)
    with pytest.raises(InjectionError, match=r"built with lora with .*'rank': 4.* asks for lora with .*'rank': 8"):
        LoRA(rank=8).select(tuned)


def test_a_module_that_forgot_its_operations_is_noticed() -> None:
    tuned = build('swin')
    LoRA().inject(tuned)
    qkv = tuned.stages[0].blocks[0].attn.w_msa.qkv
    qkv._forward_hooks.clear()
    with pytest.raises(InjectionError, match=r"'stages.0.blocks.0.attn.w_msa.qkv' \(Linear\) holds 'lora'"):
        LoRA().select(tuned)


def test_a_layer_that_is_read_and_not_called_is_refused() -> None:
    from mmseg.models.backbones import BEiT

    backbone = BEiT(img_size=(32, 32), patch_size=8, embed_dims=16, num_layers=1, num_heads=2, out_indices=(0,))
    with pytest.raises(InjectionError, match='BEiTAttention reads its weight and never calls it'):
        LoRA().inject(backbone)
