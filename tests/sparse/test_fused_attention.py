"""Attention without attention weights: calls, callers and dropout."""

import copy

import pytest
import torch
from test_lean import CALLER, METHODS, Caller
from torch import Tensor, nn
from training_pair import prepare, uneven

from mmgps.sparse import CompactTraining, FusedAttention, saved_bytes


def test_attention_weights_are_not_kept() -> None:
    net = Caller().double()
    x = torch.randn(2, 40, 12, dtype=torch.float64, requires_grad=True)
    lasting = [*net.parameters(), x]
    weights = 2 * 3 * 40 * 40 * 8
    assert saved_bytes(lambda: net(x), lasting) > weights
    FusedAttention([CALLER]).start(net)
    assert saved_bytes(lambda: net(x), lasting) < weights


CALLS = {
    'plain': ({}, {}),
    'batch first': (dict(batch_first=True), {}),
    'no bias': (dict(bias=False), {}),
    'extra key': (dict(add_bias_kv=True), {}),
    'zero key': (dict(add_zero_attn=True), {}),
    'masked': ({}, dict(attn_mask=torch.ones(5, 5).triu(1).bool())),
    'float mask': ({}, dict(attn_mask=torch.arange(25.0).view(5, 5).double() / 9)),
    'mask of each head': ({}, dict(attn_mask=torch.ones(6, 5, 5).triu(1).bool())),
    'padded': (dict(batch_first=True), dict(key_padding_mask=torch.tensor([[False] * 5, [False] * 3 + [True] * 2]))),
    'other keys': ({}, dict(key=torch.randn(2, 7, 12, dtype=torch.float64))),
    'other widths': (dict(kdim=8, vdim=8), dict(key=torch.randn(2, 7, 8, dtype=torch.float64))),
}


@pytest.mark.parametrize('trains', ['full', 'k1'])
@pytest.mark.parametrize('name', CALLS)
def test_every_call_of_the_attention(name: str, trains: str) -> None:
    options, call = CALLS[name]
    torch.manual_seed(0)
    base = Caller(**options).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    found = []
    for lean in ([], [FusedAttention([CALLER])]):
        net, own = copy.deepcopy(base), x.clone().requires_grad_()
        training, optimizer = prepare(CompactTraining, net, METHODS[trains][1](net))
        for option in lean:
            option.start(net)
        output = net(own, **call)
        uneven([output]).backward()
        held = [value for group in optimizer.param_groups for value in group['params']]
        found.append([output, own.grad, *(value.grad for value in held)])
        training.after_step()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_queries_without_gradient_stay_without() -> None:
    """Two views of the same numbers share one projection only if their gradients go to the same tensor."""
    caller = Caller(batch_first=True).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    gradients = []
    for lean in ([], [FusedAttention([CALLER])]):
        own = x.clone().requires_grad_()
        for option in lean:
            option.start(caller)
        caller(own.view(2, 5, 12), own.detach().view(2, 5, 12)).square().sum().backward()
        gradients.append(own.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_attention_dropout_drops_the_expected_share() -> None:
    torch.manual_seed(0)
    caller = Caller(dropout=0.5).double()
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    expected = caller.eval()(x)
    FusedAttention([CALLER]).start(caller)
    torch.testing.assert_close(caller(x), expected)
    draws = torch.stack([caller.train()(x) for _ in range(2000)])
    assert draws.std(0).min() > 1e-3
    torch.testing.assert_close(draws.mean(0), expected, rtol=0.1, atol=0.02)


class Heir(Caller):
    """Runs the forward of a known class."""


class Weights(Caller):
    """Has a forward of its own, which keeps the attention weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x)[1]


class OwnAttention(nn.MultiheadAttention):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


def test_only_callers_that_drop_the_weights_are_served() -> None:
    own = Caller()
    vars(own)['forward'] = lambda x: own.attn(x, x, x)[1]
    native = Caller()
    native.attn = OwnAttention(12, 3)
    for caller in (Weights(), own, native):
        with pytest.raises(ValueError, match='is known to drop the weights'):
            FusedAttention([CALLER]).start(nn.Sequential(caller))
    FusedAttention([CALLER]).start(Heir())
