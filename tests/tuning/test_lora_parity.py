"""LoRA against HF peft, and against the base with the product of its factors added."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip('mmpretrain')

from architectures import BUILDERS, build
from torch import nn

from mmgps.tuning import LayerPart, LoRA
from mmgps.tuning.sites import find_sites
from mmgps.utils.requirements import require

ALL = ('qkv', 'proj', 'fc1', 'fc2', 'linear', 'conv')


def randomise(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Give the factors numbers that change the output, and return them by name."""
    found = {n: p for n, p in backbone.named_parameters() if '.lora.' in n}
    for value in found.values():
        nn.init.normal_(value, std=0.3)
    return found


def by_peft(base: nn.Module, factors: dict[str, torch.Tensor], rank: int, alpha: int) -> nn.Module:
    """The same network by peft, with the same factors."""
    require('mmengine')
    peft = pytest.importorskip('peft')
    sites = [
        site for site in find_sites(base) if site.part in (LayerPart.QKV, LayerPart.PROJ, LayerPart.FC1, LayerPart.FC2)
    ]
    heads = {site.path for site in sites if site.attention is not None and site.part is LayerPart.QKV}
    targets = [site.path for site in sites if site.part in (LayerPart.FC1, LayerPart.FC2) or site.attention is None] + [
        *heads
    ]
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
        # peft 0.21 adds that of nn.MultiheadAttention twice; the test below compares it
        if name.endswith('out_proj.lora.b'):
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


def added(base: nn.Module, factors: dict[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """The weights of ``base`` with ``scale * b a`` added, which depend on ``factors``."""
    found = {}
    for site in find_sites(base):
        names = [site.parameter_name('lora', factor) for factor in 'ab']
        if names[0] not in factors:
            continue
        a, b = (factors[name] for name in names)
        found[site.name] = site.weight.detach() + scale * (b @ a.flatten(1)).view_as(site.weight)
    return found


@pytest.mark.parametrize('kind', BUILDERS)
def test_every_factor_gives_the_outputs_and_gradients_of_the_added_product(kind: str) -> None:
    base = build(kind).double()
    ours = copy.deepcopy(base)
    LoRA(rank=2, alpha=3, parts=ALL).inject(ours)
    factors = randomise(ours)
    plain = {name: value.detach().clone().requires_grad_() for name, value in factors.items()}
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    mine, other = ours(x), torch.func.functional_call(base, added(base, plain, 3 / 2), (x,))
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    for maps, values in ((mine, factors), (other, plain)):
        sum(y.square().mean() for y in maps).backward(inputs=list(values.values()))
    for name, value in plain.items():
        assert value.grad.abs().max() > 1e-12, name  # exactly zero where nothing reaches it; deep layers have 1e-9
        torch.testing.assert_close(factors[name].grad, value.grad, rtol=1e-8, atol=1e-12)
