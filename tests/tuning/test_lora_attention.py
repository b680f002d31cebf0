"""LoRA within ``nn.MultiheadAttention``, which calls none of its projections."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from mmgps.tuning import LoRA, merge_operations


def randomise(net: nn.Module) -> None:
    for name, value in net.named_parameters():
        if '.lora.' in name:
            nn.init.normal_(value, std=0.3)


def test_cross_attention_and_its_parts() -> None:
    """Query, key and value have three inputs, and each uses its rows of the packed factors."""
    net = nn.ModuleDict(dict(attention=nn.MultiheadAttention(8, 2, batch_first=True))).double()
    LoRA(rank=3, parts=('qkv', 'proj')).inject(net)
    randomise(net)
    attention = net['attention']
    q, k, v = (torch.randn(2, n, 8, dtype=torch.float64) for n in (3, 5, 5))
    calls = [(q, k, v), (q, k, k), (k, k, k)]
    expected = [attention(*call)[0] for call in calls]
    merge_operations(net)
    for call, value in zip(calls, expected, strict=True):
        torch.testing.assert_close(attention(*call)[0], value, rtol=1e-10, atol=1e-10)


def test_under_a_default_device() -> None:
    """A default device is a mode of torch that would call torch's function instead of the one with the factors."""
    net = nn.ModuleDict(dict(attention=nn.MultiheadAttention(8, 2, batch_first=True)))
    LoRA(rank=3, parts=('qkv', 'proj')).inject(net)
    randomise(net)
    x = torch.randn(2, 5, 8)
    expected = net['attention'](x, x, x)[0]
    with torch.device('cpu'):
        assert torch.equal(net['attention'](x, x, x)[0], expected)


@pytest.mark.parametrize('grad', [True, False])
def test_an_attention_of_torch_alone_equals_one_with_merged_weights(grad: bool) -> None:
    """Batch first in evaluation, where torch would use its fast path and skip the factors."""
    tuned = nn.Sequential(nn.MultiheadAttention(16, 2, batch_first=True))
    LoRA(rank=4, parts=('qkv', 'proj')).inject(tuned)
    randomise(tuned)
    merged = copy.deepcopy(tuned).eval()
    merge_operations(merged)
    x = torch.randn(2, 5, 16)
    with torch.set_grad_enabled(grad):
        found, expected = (m.eval()[0](x, x, x, need_weights=False)[0] for m in (tuned, merged))
    torch.testing.assert_close(found, expected)


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures('_fresh_compiler')
def test_compiled_it_is_one_graph_with_the_same_numbers() -> None:
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls = [(x, x, x), (x, x.flip(0), x.flip(0)), (x, x.flip(0), x.flip(1))]
            return sum(self.attention(*call)[0] for call in calls)

    net = Calls().double()
    LoRA(rank=3, parts=('qkv', 'proj')).inject(net)
    randomise(net)
    twin, x = copy.deepcopy(net), torch.randn(2, 4, 8, dtype=torch.float64)
    counter = CompileCounterWithBackend('aot_eager')
    for network, forward in ((net, net), (twin, torch.compile(twin, backend=counter, fullgraph=True))):
        for _ in range(2):
            forward(x).square().mean().backward()
        assert sum(value.grad is not None for value in network.parameters()) >= 4
    assert counter.frame_count == 1
    for value, expected in zip(twin.parameters(), net.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(value.grad, expected.grad, rtol=1e-10, atol=1e-12)
