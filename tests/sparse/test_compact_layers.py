"""Compact training equals masked training for every type of layer that owns a weight."""

import pytest
import torch
from torch import nn
from training_pair import assert_equal_training, prepare, random_selection

from mmgps.sparse import CompactTraining
from mmgps.sparse.routes import GradientKernel, LayerCost

LAYERS = {
    'linear': (lambda: nn.Linear(12, 7), (3, 5, 12)),
    'linear-wide': (lambda: nn.Linear(80, 60), (3, 5, 80)),
    'linear-without-bias': (lambda: nn.Linear(12, 7, bias=False), (3, 12)),
    'conv1d': (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    'conv2d': (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 8)),
    'conv2d-1x1': (lambda: nn.Conv2d(8, 6, 1), (2, 8, 5, 4)),
    'conv2d-1x1-strided': (lambda: nn.Conv2d(8, 6, 1, stride=2), (2, 8, 5, 4)),
    'conv2d-patches': (lambda: nn.Conv2d(3, 6, 4, stride=4), (2, 3, 12, 8)),
    'conv2d-dilated': (lambda: nn.Conv2d(4, 6, 3, dilation=2, padding='same'), (2, 4, 7, 8)),
    'conv2d-even-same': (lambda: nn.Conv2d(4, 6, 4, padding='same'), (2, 4, 7, 8)),
    'conv2d-reflect': (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=2, padding_mode='reflect'), (2, 4, 7, 8)),
    'conv2d-circular': (lambda: nn.Conv2d(4, 6, 3, padding=(0, 1), padding_mode='circular'), (2, 4, 7, 8)),
    'conv2d-replicate': (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode='replicate'), (2, 4, 7, 8)),
    'conv2d-grouped': (lambda: nn.Conv2d(8, 6, 3, groups=2, stride=2, padding=1), (2, 8, 7, 8)),
    'conv2d-depthwise': (lambda: nn.Conv2d(6, 6, 5, groups=6, padding=2), (2, 6, 7, 8)),
    'conv2d-unbatched': (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 7, 8)),
    'conv3d': (lambda: nn.Conv3d(2, 3, 2, padding='valid'), (2, 2, 4, 3, 5)),
    'transposed1d': (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 5)),
    'transposed2d': (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5, 6)),
    'transposed2d-grouped': (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2), (2, 4, 5, 6)),
    'transposed3d': (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), (2, 2, 2, 3, 2)),
    'bilinear': (lambda: _Pair(nn.Bilinear(5, 5, 4)), (3, 5)),
    'lstm': (lambda: _First(nn.LSTM(5, 4, num_layers=2)), (3, 2, 5)),
    'standardised': (lambda: _Standardised(4, 6, 3), (2, 4, 7, 8)),
}


class _Pair(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, x.flip(0))


class _First(_Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


class _Standardised(nn.Conv2d):
    """Standardises its weight before use, like mmcv's ConvWS2d."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    make, shape = LAYERS[name]
    return nn.Sequential(make(), nn.GELU()).double(), torch.randn(shape, dtype=torch.float64)


def square(x: torch.Tensor):
    return lambda network, step: (network(x + 0.01 * step) - 0.3).square().mean()


@pytest.mark.parametrize(('k', 'optimizer'), [(1, 'adamw'), (3, 'sgd')])
@pytest.mark.parametrize('name', LAYERS)
def test_compact_equals_masked(name: str, k: int, optimizer: str) -> None:
    network, x = build(name)
    assert_equal_training(network, random_selection(network, k), square(x), optimizer=optimizer)


@pytest.mark.parametrize('kind', ['columns', 'gather', 'dense'])
@pytest.mark.parametrize('name', [name for name in LAYERS if name not in ('bilinear', 'lstm', 'standardised')])
def test_every_route_gives_the_same(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LayerCost, 'costs', lambda self: {GradientKernel(kind): 0.0})
    network, x = build(name)
    selection = random_selection(network, 2)
    assert_equal_training(network, selection, square(x), steps=3)
    with CompactTraining(network, selection) as training:
        # a grouped transposed convolution must keep all channels
        taken = 'dense' if (name, kind) == ('transposed2d-grouped', 'columns') else kind
        assert [route.kind for route in training.routes().values()] == [taken]


def test_layers_that_do_not_compute_natively_take_the_fallback() -> None:
    for name in ('bilinear', 'lstm', 'standardised'):
        network, _ = build(name)
        with CompactTraining(network, random_selection(network)) as training:
            assert {route.kind for route in training.routes().values()} == {'fallback'}


class Attention(nn.Module):
    """Calls ``nn.MultiheadAttention`` by ``call``."""

    def __init__(self, call, **options) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.call = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(self.attention, x)


CAUSAL = torch.ones(4, 4, dtype=torch.bool).triu(1)
IGNORED = torch.tensor([[False, False, True, False]] * 4)
ATTENTION = {
    'self': (lambda a, x: a(x, x, x)[0], {}),
    'self-without-weights': (lambda a, x: a(x, x, x, need_weights=False)[0], dict(dropout=0.2)),
    'self-dropout': (lambda a, x: a(x, x, x)[0], dict(dropout=0.2)),
    'per-head-weights': (lambda a, x: a(x, x, x, average_attn_weights=False)[1], {}),
    'cross': (lambda a, x: a(x, x.flip(0), x.flip(0))[0] + a(*[x.flip(0)] * 2, x)[0], {}),
    'key-is-value': (lambda a, x: (lambda y: a(x, y, y)[0])(x.flip(0)), {}),
    'batch-first': (lambda a, x: a(x, x, x, key_padding_mask=IGNORED)[0], dict(batch_first=True)),
    'masked': (lambda a, x: a(x, x, x, attn_mask=CAUSAL, need_weights=False)[0], {}),
    'causal': (lambda a, x: a(x, x, x, attn_mask=CAUSAL, is_causal=True, need_weights=False)[0], {}),
    'sizes': (lambda a, x: a(x, x[..., :5], x[..., :3])[0], dict(kdim=5, vdim=3)),
    'without-bias': (lambda a, x: a(x, x, x)[0], dict(bias=False)),
    'extra-keys': (lambda a, x: a(x, x, x)[0], dict(add_bias_kv=True, add_zero_attn=True)),
    'unbatched': (lambda a, x: a(x[0], x[0], x[0])[0], {}),
}


@pytest.mark.parametrize('name', ATTENTION)
def test_attention(name: str) -> None:
    call, options = ATTENTION[name]
    network = Attention(call, **options).double()
    x = torch.randn(4, 4, 8, dtype=torch.float64)
    assert_equal_training(network, random_selection(network, 2), square(x))


def test_attention_computes_the_same_bits_and_trains_in_eval_mode_too() -> None:
    x = torch.randn(4, 3, 8)
    network = Attention(lambda a, x: a(x, x, x)[0], batch_first=True).eval()
    selection = random_selection(network, full_roles=())
    expected = network(x)
    training, _ = prepare(CompactTraining, network, selection)
    found = network(x)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert all(value.grad is not None for value in training.replacements().values())
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 6)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.first.weight = self.second.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.first(x)).relu_()) + self.table(torch.arange(3))


def test_tied_weights_and_layers_used_twice() -> None:
    network = Tied().double()
    x = torch.randn(3, 6, dtype=torch.float64)
    selection = random_selection(network, 2)
    assert len(selection.connections) == 1
    assert_equal_training(network, selection, square(x))


def test_a_padding_that_was_set_after_construction() -> None:
    """mmseg's MobileNetV3 changes the geometry of its convolutions like this, to dilate them."""
    net = nn.Sequential(nn.Conv2d(4, 6, 5, padding=2), nn.Conv2d(6, 6, 3, padding=1, groups=6)).double()
    for layer, padding in zip(net, (4, 2), strict=True):
        layer.dilation, layer.padding = (2, 2), (padding, padding)
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    assert net(x).shape == (2, 6, 8, 9)
    assert_equal_training(net, random_selection(net), lambda model, step: model(x).square().sum(), steps=3)
