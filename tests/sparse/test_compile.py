"""Compact training under ``torch.compile`` needs one graph and gives the numbers of eager mode."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from training_pair import prepare, random_selection, uneven

from mmgps.sparse import CompactTraining


class Attention(nn.Module):
    """Calls ``nn.MultiheadAttention`` with queries, keys and values from one, two and three sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other, third = x.flip(0), x.flip(1)
        calls = [(x, x, x), (x, other, other), (x, other, third)]
        return sum(self.attention(*call)[0] for call in calls)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 4, 2)
    )


def mmseg_vit() -> nn.Module:
    pytest.importorskip('mmseg')
    from architectures import build

    return build('vit')


NETWORKS = {
    'linear': (lambda: nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 4)), (2, 5, 8)),
    'convolutions': (convolutions, (2, 3, 8, 8)),
    'attention': (Attention, (3, 4, 8)),
    'mmseg-vit': (mmseg_vit, (2, 3, 32, 32)),
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def steps(network: nn.Module, x: torch.Tensor, k: int, backend: object) -> dict[str, torch.Tensor]:
    """The state after three steps, compiled by ``backend`` or not at all."""
    network = copy.deepcopy(network)
    training, optimizer = prepare(CompactTraining, network, random_selection(network, k))
    # the graph must contain the whole forward
    forward = network if backend is None else torch.compile(network, backend=backend, fullgraph=True)
    for _ in range(3):
        found = forward(x)
        optimizer.zero_grad()
        uneven(found if isinstance(found, (tuple, list)) else [found]).backward()
        training.before_step()
        optimizer.step()
        training.after_step()
    return network.state_dict()


@pytest.mark.parametrize(
    ('name', 'k'), [(name, k) for name in NETWORKS for k in (1, 3) if (name, k) != ('mmseg-vit', 1)]
)
def test_compiled_training_is_eager_training(name: str, k: int) -> None:
    counter = CompileCounterWithBackend('aot_eager')
    make, shape = NETWORKS[name]
    network, x = make().double(), torch.randn(shape, dtype=torch.float64)
    expected, found = steps(network, x, k, None), steps(network, x, k, counter)
    before = network.state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in expected.items())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-10)
    assert counter.frame_count == 1
