"""SSF and adapters, compared with explicit formulas."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmpretrain')

import torch.nn.functional as F
from architectures import build
from torch import Tensor, nn
from tuned import outputs

from mmgps.models.sam.image_encoder import LayerNorm2d
from mmgps.tuning import SSF, Adapter, InjectionError, merge_operations


def test_ssf_stands_behind_every_norm_layer_and_projection() -> None:
    tuned = build('vit')
    SSF().inject(tuned)
    found = {name.removesuffix('.ssf.scale') for name, _ in tuned.named_parameters() if name.endswith('.ssf.scale')}
    block = ['ln1', 'attn.attn', 'attn.attn.out_proj', 'ln2', 'ffn.layers.0.0', 'ffn.layers.1']
    expected = {f'layers.{at}.{name}' for at in (0, 1) for name in block}
    assert found == expected | {'patch_embed.projection', 'ln1'}
    scales = torch.cat([value for name, value in tuned.named_parameters() if name.endswith('scale')])
    shifts = torch.cat([value for name, value in tuned.named_parameters() if name.endswith('shift')])
    assert abs(scales.mean() - 1) < 0.005
    assert abs(shifts.mean()) < 0.005
    assert 0.015 < scales.std() < 0.025
    assert 0.015 < shifts.std() < 0.025


@pytest.mark.parametrize('kind', ['vit', 'swin', 'convnext', 'resnet'])
def test_ssf_without_deviation_starts_as_the_base(kind: str) -> None:
    tuned = build(kind)
    SSF(std=0).inject(tuned)
    for found, expected in zip(outputs(tuned), outputs(build(kind)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_ssf_scales_channels_in_either_layout() -> None:
    """The caller of MMPretrain's norm names the channel dimension, even if both sizes are equal."""
    from mmpretrain.models.utils.norm import LayerNorm2d

    net = nn.Sequential(LayerNorm2d(4), nn.Conv2d(4, 4, 1))
    SSF(std=0.5).inject(net)
    norm, x = net[0], torch.randn(2, 4, 4, 4)
    scale, shift = norm.ssf.scale, norm.ssf.shift
    base = F.layer_norm(x.movedim(1, -1), (4,), norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(norm(x), (base * scale + shift).movedim(-1, 1))
    torch.testing.assert_close(norm(x.movedim(1, -1), data_format='channel_last'), base * scale + shift)
    conv = net[1]
    expected = F.conv2d(x, conv.weight, conv.bias) * conv.ssf.scale.view(-1, 1, 1) + conv.ssf.shift.view(-1, 1, 1)
    torch.testing.assert_close(conv(x), expected)


class FloatLayerNorm(nn.LayerNorm):
    """Computes in single precision for any input, like that of CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class PairNorm(nn.Module):
    """Its shapes show that it is a norm, but nothing shows its channel dimension."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


def hornet_norm(**layout: str) -> nn.Module:
    from mmpretrain.models.backbones.hornet import HorNetLayerNorm

    return HorNetLayerNorm(8, **layout)


@pytest.mark.parametrize('sides', [(3, 5), (8, 8)])
@pytest.mark.parametrize(
    ('make', 'dim'),
    [
        (hornet_norm, -1),
        (lambda: hornet_norm(data_format='channels_first'), 1),
        (lambda: FloatLayerNorm(8), -1),
        (lambda: LayerNorm2d(8), 1),
        (lambda: nn.LayerNorm(8), -1),
        (lambda: nn.GroupNorm(2, 8), 1),
    ],
    ids=['hornet-last', 'hornet-first', 'clip', 'sam', 'torch-layer', 'torch-group'],
)
def test_ssf_finds_the_channels_of_a_norm_and_merges(make, dim: int, sides: tuple[int, int]) -> None:
    net = nn.Sequential(make())
    x = torch.randn(2, 8, *sides).movedim(1, dim)
    base = net(x).detach().movedim(dim, -1)
    SSF(std=0.5).inject(net)
    expected = (base * net[0].ssf.scale + net[0].ssf.shift).movedim(-1, dim)
    torch.testing.assert_close(net(x), expected)
    merge_operations(net)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize('norm', [PairNorm(4), nn.LayerNorm((4, 2, 2))], ids=['pair', 'whole-maps'])
def test_ssf_refuses_a_norm_of_unknown_layout(norm: nn.Module) -> None:
    kind = type(norm).__name__
    with pytest.raises(InjectionError, match=rf"dimension of '1' \({kind}\) is unknown; set its data_format"):
        SSF().inject(nn.Sequential(nn.Conv2d(3, 4, 1), norm))


def test_ssf_leaves_out_what_a_batch_norm_would_undo() -> None:
    tuned = build('resnet')
    SSF().inject(tuned)
    owners = {name.partition('.ssf')[0] for name, _ in tuned.named_parameters() if '.ssf.' in name}
    assert owners == {name for name, module in tuned.named_modules() if isinstance(module, nn.BatchNorm2d)}


def test_ssf_gives_a_layer_without_bias_a_scale_alone_and_merges_it() -> None:
    net = nn.Sequential(nn.Linear(3, 5, bias=False)).double()
    SSF(std=0.5).inject(net)
    assert net[0].ssf.shift is None
    x = torch.randn(2, 3, dtype=torch.float64)
    expected = net(x)
    assert (expected - F.linear(x, net[0].weight)).abs().max() > 0.01
    merge_operations(net)
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


def test_ssf_refuses_a_negative_deviation() -> None:
    with pytest.raises(ValueError, match=r'at least 0, got -1'):
        SSF(std=-1)


def test_an_adapter_stands_behind_the_mlp_before_the_residual() -> None:
    tuned = build('mmpretrain-vit')
    Adapter(bottleneck=3).inject(tuned)
    layer = tuned.layers[0].eval()
    op = layer.ffn.layers[1].adapter
    for value in op.parameters():
        nn.init.normal_(value)
    x = torch.randn(2, 17, 16)
    middle = x + layer.attn(layer.ln1(x))
    inner = layer.ffn.layers
    y = F.linear(
        F.gelu(F.linear(layer.ln2(middle), inner[0][0].weight, inner[0][0].bias)), inner[1].weight, inner[1].bias
    )
    low = F.gelu(F.linear(y, op.down, op.down_bias))
    torch.testing.assert_close(layer(x), middle + y + F.linear(low, op.up, op.up_bias))


@pytest.mark.parametrize(
    ('kind', 'parts', 'owners'),
    [
        ('vit', None, {f'layers.{at}.ffn.layers.1' for at in (0, 1)}),
        ('vit', 'proj,fc2', {f'layers.{at}.{n}' for at in (0, 1) for n in ('attn.attn.out_proj', 'ffn.layers.1')}),
        ('convnext', None, {f'stages.{at}.0.pointwise_conv2' for at in (0, 1)}),
        ('resnet', None, {f'layer{stage}.{at}.bn2' for stage in (1, 2) for at in (0, 1)}),
    ],
)
def test_where_adapters_stand(kind: str, parts: str | None, owners: set[str]) -> None:
    tuned = build(kind)
    Adapter(parts=parts and parts.split(',')).inject(tuned)
    found = {name.partition('.adapter')[0] for name, _ in tuned.named_parameters() if '.adapter.' in name}
    assert found == owners


def test_an_adapter_on_maps_works_pixel_by_pixel() -> None:
    tuned = build('resnet')
    Adapter(bottleneck=2).inject(tuned)
    norm = tuned.layer1[0].bn2.eval()
    for value in norm.adapter.parameters():
        nn.init.normal_(value)
    x, op = torch.randn(2, 8, 3, 5), norm.adapter
    y = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0, norm.eps)
    low = F.gelu(F.conv2d(y, op.down[..., None, None], op.down_bias))
    torch.testing.assert_close(norm(x), y + F.conv2d(low, op.up[..., None, None], op.up_bias))


def test_an_adapter_cannot_be_merged_and_nothing_changes() -> None:
    tuned = build('vit')
    Adapter().inject(tuned)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    with pytest.raises(InjectionError, match='Bottleneck is not a linear map of the output and cannot be merged'):
        merge_operations(tuned)
    assert all(torch.equal(value, before[name]) for name, value in tuned.state_dict().items())


def test_an_adapter_needs_a_place() -> None:
    with pytest.raises(InjectionError, match='adapter goes to fc2, and Sequential has no such part'):
        Adapter().inject(nn.Sequential(nn.Conv2d(3, 4, 3)))
