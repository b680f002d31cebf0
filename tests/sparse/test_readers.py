"""Every read of a weight contributes to its gradient, even by code that does not call the layer."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from training_pair import prepare, random_selection

from mmgps.sparse import CompactTraining, MaskedTraining


class Reading(nn.Module):
    """Layers and an attention; ``read`` computes with them and may or may not call them."""

    def __init__(self, read: Callable[['Reading', torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.conv = nn.Conv1d(1, 2, 3, padding=1)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.read = read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.read(self, x)


def attention_by_hand(net: Reading, x: torch.Tensor) -> torch.Tensor:
    """Compute attention without calling the module, like mmseg's SAN."""
    inner = net.attention
    q, k, v = F.linear(net.first(x), inner.in_proj_weight, inner.in_proj_bias).chunk(3, -1)
    return F.linear((q @ k.transpose(-1, -2)).softmax(-1) @ v, inner.out_proj.weight, inner.out_proj.bias)


def recomputed(net: Reading, x: torch.Tensor) -> torch.Tensor:
    inner = checkpoint(lambda y: F.linear(net.second(y), net.second.weight), x, use_reentrant=False)
    return inner + net.first(x)


READS = {
    'never called': lambda net, x: F.linear(net.second(x), net.first.weight, net.first.bias),
    'tied decoder': lambda net, x: F.linear(net.first(x).tanh(), net.first.weight.t()),
    'called between two reads': lambda net, x: net.first.weight @ net.first(x @ net.first.weight).transpose(1, 2),
    'another layer reads it': lambda net, x: F.linear(net.second(x), net.second.weight @ net.first.weight),
    'attention by hand': attention_by_hand,
    'attention called and read': lambda net, x: attention_by_hand(net, net.attention(x, x, x)[0]),
    'projection of the attention called': lambda net, x: net.attention.out_proj(net.attention(x, x, x)[0]),
    'convolution': lambda net, x: net.conv(x[:, :1]) * F.conv1d(x[:, :1], net.conv.weight.abs(), padding=1),
    'recomputed': recomputed,
    'a part of it': lambda net, x: net.first(x) * net.first.weight[2],
    'as a parameter': lambda net, x: net.first(x) + sum(value.square().sum() for value in net.parameters()),
}


def with_input(x: torch.Tensor):
    return lambda net, step: (net(x + 0.01 * step) - 0.3).square().mean()


def tokens() -> torch.Tensor:
    return torch.randn(2, 3, 6, dtype=torch.float64)


@pytest.mark.parametrize('name', READS)
def test_a_read_within_the_network(name: str) -> None:
    network = Reading(READS[name]).double()
    used = used_weights(network)
    assert used
    assert_same_training(network, with_input(tokens()), used)


def used_weights(network: nn.Module) -> set[str]:
    """Names of the weights that receive a gradient in plain torch."""
    twin = copy.deepcopy(network)
    with_input(tokens())(twin, 0).backward()
    return {name for name, value in twin.named_parameters() if value.dim() > 1 and value.grad is not None}


def assert_same_training(network: nn.Module, loss, used: set[str], backbone: str = '') -> dict[str, torch.Tensor]:
    """Train ``backbone`` of ``network`` both ways, and return the state after compact training.

    Args:
        network: The network.
        loss: Maps a copy of it and the number of a step to the loss.
        used: Names of the weights that receive a gradient in every step.
        backbone: Name of the trained part; by default the whole network.
    """
    states = {}
    for kind in (MaskedTraining, CompactTraining):
        net = copy.deepcopy(network)
        part = net.get_submodule(backbone)
        training, optimizer = prepare(kind, part, random_selection(part, 2), registered=False)
        names = {id(value): name for name, value in net.named_parameters()}
        for step in range(5):
            optimizer.zero_grad()
            loss(net, step).backward()
            found = {names[id(old)] for old, new in training.replacements().items() if new.grad is not None}
            assert kind is MaskedTraining or found == used
            training.before_step()
            optimizer.step()
            training.after_step()
        states[kind] = net.state_dict()
    for name, value in states[MaskedTraining].items():
        torch.testing.assert_close(states[CompactTraining][name], value, rtol=1e-10, atol=1e-12)
    return states[CompactTraining]


def test_a_branch_that_runs_later() -> None:
    def read(net: Reading, x: torch.Tensor) -> torch.Tensor:
        y = net.first(x)
        return F.linear(y, net.first.weight) if read.later else y

    def loss(net: nn.Module, step: int) -> torch.Tensor:
        read.later = step >= 2
        return with_input(x)(net, step)

    x, network = tokens(), Reading(read).double()
    assert_same_training(network, loss, {'first.weight'})


class Headed(nn.Module):
    """A backbone, and a head that reads one of its weights and shares another."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))
        self.head = nn.Linear(6, 6)
        self.head.weight = self.backbone[2].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.head(self.backbone(x)), self.backbone[0].weight)


def test_a_read_from_outside_of_the_backbone() -> None:
    def loss(net: Headed, step: int) -> torch.Tensor:
        before = net.backbone[0].weight.square().sum()  # the loss reads the weight too, before the forward pass
        return with_input(x)(net, step) + 0.1 * before

    base, x = Headed().double(), tokens()
    state = assert_same_training(base, loss, {'backbone.0.weight', 'backbone.2.weight'}, 'backbone')
    assert not torch.equal(state['head.weight'], base.head.weight)
