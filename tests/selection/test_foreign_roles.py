"""Roles of layers from outside the mm libraries: cells, reparametrized weights, and unlisted classes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from mmgps.selection import Role, describe


def roles(module: nn.Module) -> dict[str, str]:
    return {name: entry.role.value for name, entry in describe(module).items()}


def vector(size: int = 3) -> nn.Parameter:
    return nn.Parameter(torch.ones(size))


def root_mean_square(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class InlineNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.g = vector()

    def forward(self, x: Tensor) -> Tensor:
        return self.g * (x / torch.sqrt(x.square().mean(-1, keepdim=True)))


class CallingNorm(InlineNorm):
    def forward(self, x: Tensor) -> Tensor:
        return (1.0 + self.g) * self._inner(x)

    def _inner(self, x: Tensor) -> Tensor:
        return root_mean_square(x)


class ThreeVectors(nn.Module):
    """Like EvoNorm: a norm with an activation, which has a third vector."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias, self.v = vector(), vector(), vector()

    def forward(self, x: Tensor) -> Tensor:
        return x * (x * self.v).sigmoid() / x.var(-1, keepdim=True).sqrt() * self.weight + self.bias


@pytest.mark.parametrize('norm', [InlineNorm, CallingNorm, ThreeVectors])
def test_a_module_that_divides_by_a_statistic_of_its_input_is_a_norm(norm: type[nn.Module]) -> None:
    module = norm()
    assert set(roles(module).values()) == {'norm'}
    assert [name for name, entry in describe(module).items() if entry.is_bias] == ['bias'] * (norm is ThreeVectors)


class Affine(nn.Module):
    """Like the affine layer that replaces norms in ResMLP; its offset comes first here."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 1, 3))
        self.gain = nn.Parameter(torch.ones(1, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self.gain, x) + self.shift


class Embeddings(nn.Module):
    """A token without a batch dimension, like CLIP's, and other parameters that enter a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.expanded, self.repeated, self.added_to_zeros, self.written = vector(), vector(), vector(), vector()
        self.position = nn.Parameter(torch.zeros(8, 3))
        self.gain = vector()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x[mask] = self.written.to(x.dtype)
        token = self.expanded.expand(len(x), 1, -1)
        zeros = self.added_to_zeros.to(x.dtype) + torch.zeros(len(x), 1, x.shape[-1])
        x = torch.cat([token, self.repeated[None, None].repeat(len(x), 1, 1), zeros, x], dim=1)
        return (x + self.position) * self.gain


class Attention(nn.Module):
    """Composes its bias from parts, and adds a table to its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.index = 3, torch.arange(4).view(2, 2)
        self.qkv = nn.Linear(3, 9, bias=False)
        self.first, self.last = vector(), vector()
        self.table = nn.Parameter(torch.zeros(4, 3))
        self.placed = nn.Parameter(torch.zeros(4, 5))
        self.temperature = nn.Parameter(torch.ones(3, 1, 1))
        self.of_heads = nn.Parameter(torch.ones(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat((self.first, torch.zeros_like(self.last), self.last)) if self.first is not None else None
        q, k, v = F.linear(x, weight=self.qkv.weight, bias=bias).chunk(3, -1)
        table = self.table[self.index.view(-1)].view(2, 2, -1)
        return ((q + self.of_heads) @ k * self.temperature + table.permute(2, 0, 1)).softmax(-1) @ v @ self.placed


class Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts, self.offset = nn.Parameter(torch.ones(4, 3)), vector(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.experts) + self.offset


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.gain = nn.Parameter(torch.ones(1, 3, 1, 1))
        self.gains = nn.ParameterList([vector(), vector()])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain * self.inner(x)


def test_what_the_code_does_with_a_parameter_says_what_it_is() -> None:
    assert roles(Affine()) == {'shift': 'norm', 'gain': 'norm'}
    assert [name for name, entry in describe(Affine()).items() if entry.is_bias] == ['shift']
    assert roles(Embeddings()) == {
        'expanded': 'embedding',
        'repeated': 'embedding',
        'added_to_zeros': 'embedding',
        'written': 'embedding',
        'position': 'embedding',
        'gain': 'scale',
    }
    assert roles(Attention()) == {
        'first': 'bias',
        'last': 'bias',
        'table': 'position_bias',
        'placed': 'other',
        'temperature': 'scale',
        'of_heads': 'bias',
        'qkv.weight': 'connection',
    }
    assert roles(Router()) == {'experts': 'connection', 'offset': 'bias'}
    assert roles(Blocks())['gain'] == 'scale'
    assert roles(Blocks())['gains.0'] == 'scale'


def test_no_source_leaves_the_shape() -> None:
    scope: dict[str, type] = {}
    exec('class Made(nn.Module):\n    def forward(self, x):\n        return x + self.v', {'nn': nn}, scope)
    module = scope['Made']()
    module.v = vector()
    assert roles(module) == {'v': 'scale'}


@pytest.mark.parametrize('kind', [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_are_as_the_layers_that_loop_over_them(kind: type[nn.Module]) -> None:
    assert roles(kind(3, 4)) == {
        'weight_ih': 'connection',
        'weight_hh': 'connection',
        'bias_ih': 'bias',
        'bias_hh': 'bias',
    }


@pytest.mark.filterwarnings('ignore:`torch.nn.utils.weight_norm` is deprecated')
def test_a_reparametrized_weight_is_what_it_was() -> None:
    layers = nn.ModuleDict(
        {
            'weight': parametrizations.weight_norm(nn.Linear(3, 4)),
            'narrow': parametrizations.weight_norm(nn.Linear(1, 4)),
            'spectral': parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
            'orthogonal': parametrizations.orthogonal(nn.Linear(3, 3)),
            'old_weight': weight_norm(nn.Conv1d(4, 4, 3, groups=2), dim=2),
            'old_spectral': spectral_norm(nn.ConvTranspose2d(2, 4, 3)),
            'pruned': prune.l1_unstructured(nn.Linear(3, 3), 'weight', 0.5),
        }
    )
    described = describe(layers)
    found = {name: entry.role.value for name, entry in described.items() if entry.role is not Role.BIAS}
    assert found == {
        'weight.parametrizations.weight.original0': 'scale',
        'weight.parametrizations.weight.original1': 'connection',
        'narrow.parametrizations.weight.original0': 'scale',
        'narrow.parametrizations.weight.original1': 'connection',
        'spectral.parametrizations.weight.original': 'connection',
        'orthogonal.parametrizations.weight.original': 'other',
        'old_weight.weight_g': 'scale',
        'old_weight.weight_v': 'connection',
        'old_spectral.weight_orig': 'connection',
        'pruned.weight_orig': 'connection',
    }
    assert described['old_spectral.weight_orig'].neurons.neurons == 4
    assert described['old_weight.weight_v'].neurons.fan_in == 6
    assert roles(parametrizations.weight_norm(nn.Linear(3, 4, bias=False))) == {
        'parametrizations.weight.original0': 'scale',
        'parametrizations.weight.original1': 'connection',
    }


def test_a_tied_bias_is_what_the_layer_says() -> None:
    head, tied = nn.Linear(3, 4), nn.Module()
    tied.register_parameter('offset', head.bias)
    described = describe(nn.ModuleList([tied, head]))
    assert described['0.offset'].role is Role.BIAS
