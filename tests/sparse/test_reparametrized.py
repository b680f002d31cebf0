"""Compact training of reparametrized weights, and of layers from outside the mm libraries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from training_pair import prepare, random_selection

from mmgps.sparse import CompactTraining, MaskedTraining


class Transposed(nn.Module):
    """Stands for ``transformers.pytorch_utils.Conv1D``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


Transposed.__module__, Transposed.__qualname__ = 'transformers.pytorch_utils', 'Conv1D'


class Stepping(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for _ in range(3):
            state = self.cell(x, state)
        return state[0] if isinstance(state, tuple) else state


BUILT: dict[str, Callable[[], nn.Module]] = {
    'weight_norm': lambda: parametrizations.weight_norm(nn.Linear(4, 6)),
    'spectral_norm': lambda: parametrizations.spectral_norm(nn.Linear(4, 6)),
    'old weight_norm': lambda: weight_norm(nn.Linear(4, 6)),
    'old weight_norm of dimension 1': lambda: weight_norm(nn.Linear(4, 6), dim=1),
    'old spectral_norm': lambda: spectral_norm(nn.Linear(4, 6)),
    'pruned': lambda: prune.l1_unstructured(nn.Linear(4, 6), 'weight', 0.4),
    'LSTMCell': lambda: Stepping(nn.LSTMCell(4, 6)),
    'GRUCell': lambda: Stepping(nn.GRUCell(4, 6)),
    'RNNCell': lambda: Stepping(nn.RNNCell(4, 6)),
    'Conv1D': Transposed,
}


@pytest.mark.parametrize('name', BUILT)
@pytest.mark.filterwarnings('ignore:`torch.nn.utils.weight_norm` is deprecated')
def test_compact_equals_masked(name: str) -> None:
    found = [trained(kind, BUILT[name]) for kind in (MaskedTraining, CompactTraining)]
    (expected, _), (after, before) = found
    for key, value in expected.items():
        assert torch.allclose(after[key], value, rtol=0, atol=1e-12), key
    for key, value in before.items():
        is_gain = key.endswith('_g') or key.endswith('original0')
        neurons = value.shape[-1] if name == 'Conv1D' else value.shape[0]
        moved = int((after[key] != value).sum())
        assert 0 < moved <= (value.numel() if is_gain else neurons), key


def trained(kind: type, build: Callable[[], nn.Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters after and before some steps of a new network, since old-style modules cannot be deep-copied."""
    torch.manual_seed(0)
    network = build().double()
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    training, optimizer = prepare(kind, network, random_selection(network))
    x = torch.randn(5, 4).double()
    for _ in range(5):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        training.before_step()
        optimizer.step()
        training.after_step()
    return {key: value.detach().clone() for key, value in network.named_parameters()}, before
