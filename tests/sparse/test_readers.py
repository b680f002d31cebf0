"""Weights that another module reads than the layer that owns them."""

import torch
import torch.nn.functional as F
from torch import nn
from training_pair import assert_equal_training, prepare, random_selection

from mmgps.sparse import CompactTraining


class Borrowed(nn.Module):
    """Reads the weight of a layer that it never calls, as BEiT's attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.parts[1](x), self.parts[0].weight, self.parts[0].bias)


def test_a_weight_that_another_module_reads() -> None:
    network = Borrowed().double()
    x = torch.randn(3, 6, dtype=torch.float64)
    assert_equal_training(
        network, random_selection(network), lambda net, step: (net(x + 0.01 * step) - 0.3).square().mean()
    )


def hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def test_hooks_leave_after_the_first_step_where_a_layer_is_called() -> None:
    network = Borrowed()
    read, called = network.parts
    training, optimizer = prepare(CompactTraining, network, random_selection(network))
    before = [hooks(read), hooks(called)]
    network(torch.randn(3, 6)).sum().backward()
    assert [hooks(read), hooks(called)] == before  # nothing changes within a forward, which may be compiled
    training.before_step()
    optimizer.step()
    training.after_step()
    assert [hooks(read), hooks(called)] == [before[0], 0]
    assert hooks(network) == 2
    training.close()
    assert [hooks(module) for module in network.modules()] == [0] * 4
