"""LoRA against HF peft, against convolutions by weight, and its refusals."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip('mmpretrain')

from architectures import build
from torch import nn
from tuned import outputs

from mmgps.requirements import require
from mmgps.tuning import InjectionError, LoRA, Part, merge_operations
from mmgps.tuning.sites import find_sites

ALL = ('qkv', 'proj', 'fc1', 'fc2', 'linear', 'conv')


def randomise(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Give the factors numbers that matter; returns them by name."""
    found = {n: p for n, p in backbone.named_parameters() if '.lora.' in n}
    for value in found.values():
        nn.init.normal_(value, std=0.3)
    return found


def by_peft(base: nn.Module, factors: dict[str, torch.Tensor], rank: int, alpha: int) -> nn.Module:
    """The same network by peft, with the same factors."""
    require('mmengine')
    peft = pytest.importorskip('peft')
    sites = [site for site in find_sites(base) if site.part in (Part.QKV, Part.PROJ, Part.FC1, Part.FC2)]
    heads = {site.path for site in sites if site.attention is not None and site.part is Part.QKV}
    targets = [site.path for site in sites if site.part in (Part.FC1, Part.FC2) or site.attention is None] + [*heads]
    tuned = copy.deepcopy(base)
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets), tuned)
    for name, value in tuned.named_parameters():
        value.requires_grad_('lora_' in name)
        if 'lora_' in name:
            attribute = 'a' if 'lora_A' in name else 'b'
            path = name.partition('.lora_')[0].replace('.base_layer', '')
            value.data.copy_(factors[f'{path}.lora.{attribute}'])
    return tuned


@pytest.mark.parametrize('kind', ['vit', 'mmpretrain-vit', 'swin'])
def test_same_factors_same_outputs_and_gradients_as_peft(kind: str) -> None:
    base = build(kind)
    ours = copy.deepcopy(base)
    LoRA(rank=4, alpha=6, parts=ALL[:4]).inject(ours)
    factors = randomise(ours)
    for name, value in factors.items():
        if name.endswith('out_proj.lora.b'):  # peft 0.21 adds that of nn.MultiheadAttention twice
            nn.init.zeros_(value)
    theirs = by_peft(base, factors, 4, 6)
    ours.train()
    theirs.train()
    x = torch.randn(2, 3, 32, 32)
    mine, other = ours(x), theirs(x)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert (mine[0] - base(x)[0]).abs().max() > 0.01
    sum(y.square().mean() for y in mine).backward()
    sum(y.square().mean() for y in other).backward()
    compared = 0
    for name, value in theirs.named_parameters():
        if 'lora_' in name:
            path = name.partition('.lora_')[0].replace('.base_layer', '')
            expected = factors[f'{path}.lora.{"a" if "lora_A" in name else "b"}'].grad
            torch.testing.assert_close(value.grad, expected, rtol=1e-3, atol=1e-6)
            compared += 1
    assert compared == len(factors)


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
        randomise_plain(net)
        x = torch.randn(2, 4, *[7] * (layer.weight.dim() - 2), dtype=torch.float64)
        expected, before = net(x), layer.weight.detach().clone()
        merge_operations(net)
        torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)
        assert not torch.equal(layer.weight, before)


def randomise_plain(net: nn.Module) -> None:
    for name, value in net.named_parameters():
        if 'lora' in name:
            nn.init.normal_(value)


def test_cross_attention_and_its_parts() -> None:
    """Query, key and value from three places: each gets its rows of the packed factors."""
    net = nn.ModuleDict(dict(attention=nn.MultiheadAttention(8, 2, batch_first=True))).double()
    LoRA(rank=3, parts=('qkv', 'proj')).inject(net)
    randomise_plain(net)
    attention = net['attention']
    q, k, v = (torch.randn(2, n, 8, dtype=torch.float64) for n in (3, 5, 5))
    calls = [(q, k, v), (q, k, k), (k, k, k)]
    expected = [attention(*call)[0] for call in calls]
    merge_operations(net)
    for call, value in zip(calls, expected, strict=True):
        torch.testing.assert_close(attention(*call)[0], value, rtol=1e-10, atol=1e-10)


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
    with pytest.raises(InjectionError, match=r"lora has no form for \['norm'\]; it offers qkv"):
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


@pytest.mark.parametrize('grad', [True, False])
def test_an_attention_of_torch_alone_equals_one_with_merged_weights(grad: bool) -> None:
    """Batch first, in evaluation: the case in which torch would take its fast path and skip the factors."""
    tuned = nn.Sequential(nn.MultiheadAttention(16, 2, batch_first=True))
    LoRA(rank=4, parts=('qkv', 'proj')).inject(tuned)
    assert randomise(tuned)
    merged = copy.deepcopy(tuned).eval()
    merge_operations(merged)
    x = torch.randn(2, 5, 16)
    with torch.set_grad_enabled(grad):
        found, expected = (m.eval()[0](x, x, x, need_weights=False)[0] for m in (tuned, merged))
    torch.testing.assert_close(found, expected)
