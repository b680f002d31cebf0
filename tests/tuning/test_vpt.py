"""Prompt tokens, compared with explicit forwards."""

from __future__ import annotations

import copy
import math

import pytest
import torch

pytest.importorskip('mmpretrain')

import torch.nn.functional as F
from architectures import build
from torch import Tensor, nn

from mmgps.delta import inject_missing
from mmgps.tuning import InjectionError, InjectionMethod, VPTDeep, VPTShallow

KINDS = ('vit', 'mmpretrain-vit')


def still(kind: str) -> nn.Module:
    backbone = build(kind)
    backbone.eval()
    return backbone


def embedded(base: nn.Module, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    tokens, size = base.patch_embed(x)
    return torch.cat([base.cls_token.expand(len(x), -1, -1), tokens], 1) + base.pos_embed, size


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


def loud(tuned: nn.Module) -> None:
    """Prompts large enough to change the output."""
    for name, value in tuned.named_parameters():
        if name.endswith('prompt.tokens'):
            nn.init.normal_(value, std=2)


@pytest.mark.parametrize('kind', KINDS)
def test_shallow_prompts_go_through_all_layers(kind: str) -> None:
    base, tuned = still(kind), still(kind)
    VPTShallow(tokens=3).inject(tuned)
    loud(tuned)
    x = torch.randn(2, 3, 32, 32)
    tokens, size = embedded(base, x)
    prompts = tuned.layers[0].prompt.tokens.expand(2, -1, -1)
    tokens = torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], 1)
    for found, layer, norm in zip(tuned(x), base.layers, [nn.Identity(), base.ln1], strict=True):
        tokens = layer(tokens)
        torch.testing.assert_close(found, as_map(norm(tokens)[:, 4:], size))


@pytest.mark.parametrize('kind', KINDS)
def test_deep_prompts_are_replaced_at_every_layer(kind: str) -> None:
    base, tuned = still(kind), still(kind)
    VPTDeep(tokens=3).inject(tuned)
    loud(tuned)
    x = torch.randn(2, 3, 32, 32)
    tokens, size = embedded(base, x)
    norms = [nn.Identity(), base.ln1]
    for found, layer, own, norm in zip(tuned(x), base.layers, tuned.layers, norms, strict=True):
        prompts = own.prompt.tokens.expand(2, -1, -1)
        out = layer(torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], 1))
        tokens = torch.cat([out[:, :1], out[:, 4:]], 1)
        torch.testing.assert_close(found, as_map(norm(tokens)[:, 1:], size))


@pytest.mark.parametrize('kind', ['swin', 'mmpretrain-swin'])
def test_in_swin_every_window_attends_to_the_prompts_of_its_block(kind: str) -> None:
    """Compare with the whole attention over prompts and tokens, without the rows of the prompts."""
    base, tuned = still(kind), still(kind)
    VPTDeep(tokens=3).inject(tuned)
    loud(tuned)
    for at, stage in enumerate(tuned.stages):
        for number, block in enumerate(stage.blocks):
            plain = base.stages[at].blocks[number]
            attention, p = plain.attn.w_msa, 3
            windows, n, width = 4, 16, attention.embed_dims
            x = torch.randn(windows, n, width)
            mask = torch.where(torch.rand(2, n, n) > 0.7, -100.0, 0.0)
            prompts = plain.norm1(block.attn.w_msa.prompt.tokens).expand(windows, -1, -1)
            every = torch.cat([prompts, x], 1)
            heads = attention.num_heads
            q, k, v = F.linear(every, attention.qkv.weight, attention.qkv.bias).chunk(3, -1)
            q, k, v = (t.view(windows, n + p, heads, -1).transpose(1, 2) for t in (q, k, v))
            bias = torch.zeros(windows, heads, n + p, n + p)
            table = attention.relative_position_bias_table[attention.relative_position_index.view(-1)]
            bias[..., p:, p:] = table.view(n, n, heads).permute(2, 0, 1)
            bias[..., p:, p:] += mask.repeat(2, 1, 1)[:, None]
            scores = q @ k.transpose(-2, -1) / math.sqrt(width // heads) + bias
            y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(windows, n + p, width)
            expected = F.linear(y, attention.proj.weight, attention.proj.bias)[:, p:]
            torch.testing.assert_close(block.attn.w_msa(x, mask=mask), expected, rtol=1e-4, atol=1e-5)


def test_first_numbers() -> None:
    tuned = build('vit')
    VPTDeep(tokens=50).inject(tuned)
    bound = math.sqrt(6 / (3 * 8 * 8 + 16))
    for layer in tuned.layers:
        found = layer.prompt.tokens
        assert found.shape == (1, 50, 16)
        assert 0.95 * bound < found.abs().max() <= bound
    assert not torch.equal(tuned.layers[0].prompt.tokens, tuned.layers[1].prompt.tokens)


def test_a_vit_without_class_token_and_with_checkpointing() -> None:
    from mmseg.models.backbones import VisionTransformer

    sizes = dict(img_size=(32, 32), patch_size=8, embed_dims=16, num_layers=2, num_heads=2, out_indices=(0, 1))
    plain = VisionTransformer(**sizes, with_cls_token=False)
    assert len(plain(torch.randn(1, 3, 32, 32))) == 2
    for method in (VPTDeep(3), VPTShallow(3)):
        tuned, saving = copy.deepcopy(plain), copy.deepcopy(plain)
        for net in (tuned, saving):
            method.inject(net)
        for layer in saving.layers:
            layer.with_cp = True
        x, gradients = torch.randn(2, 3, 32, 32), []
        for net in (tuned, saving):
            sum(y.square().mean() for y in net(x)).backward()
            gradients.append([v.grad for n, v in net.named_parameters() if 'prompt' in n])
        assert tuned(x)[0].shape == plain(x)[0].shape
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)
            assert a.abs().max() > 0


def test_swin_with_checkpointing() -> None:
    tuned, saving = build('swin'), build('swin')
    gradients = []
    for net, checkpointing in ((tuned, False), (saving, True)):
        VPTDeep(3).inject(net)
        for stage in net.stages:
            for block in stage.blocks:
                block.with_cp = checkpointing
        sum(y.square().mean() for y in net(torch.ones(2, 3, 32, 32))).backward()
        gradients.append([v.grad for n, v in net.named_parameters() if 'prompt' in n])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_swin_merges_tokens_between_stages() -> None:
    with pytest.raises(InjectionError, match=r'vpt-shallow needs a plain ViT .* use vpt-deep; SwinTransformer'):
        VPTShallow().inject(build('swin'))


def test_a_layer_that_only_derives_from_a_known_one_is_refused() -> None:
    from mmseg.models.backbones import BEiT

    backbone = BEiT(img_size=(32, 32), patch_size=8, embed_dims=16, num_layers=1, num_heads=2, out_indices=(0,))
    with pytest.raises(InjectionError, match=r'vpt-deep needs a plain ViT or Swin .* BEiT has no layers'):
        VPTDeep().inject(backbone)


def test_prompts_that_were_lost_are_noticed() -> None:
    tuned = build('vit')
    VPTShallow().inject(tuned)
    tuned.layers.insert(1, nn.Flatten(0, 0))
    tuned.layers[1].forward = lambda x: x * 1
    with pytest.raises(RuntimeError, match='the prompts did not reach this layer'):
        tuned(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ('method', 'kind', 'frozen'), [(VPTShallow(2), 'vit', 'layers.0'), (VPTDeep(2), 'swin', 'stages.0')]
)
def test_prompts_of_a_run_with_frozen_layers_go_to_a_network_that_is_frozen_as_a_whole(
    method: InjectionMethod, kind: str, frozen: str
) -> None:
    run, plain = build(kind), build(kind).requires_grad_(False)
    run.get_submodule(frozen).requires_grad_(False)
    selection = method.select(run)
    inject_missing(plain, selection, set(selection.whole))
    assert [name for name, _ in plain.named_modules()] == [name for name, _ in run.named_modules()]
    assert not any(name.startswith(frozen) for name in selection.whole)
