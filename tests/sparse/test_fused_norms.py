"""Convolutions that the mm libraries fuse with the following norm (``efficient_conv_bn_eval``)."""

import pytest
import torch
from torch import nn
from training_pair import assert_equal_training, random_selection, uneven

from mmgps.sparse import CompactTraining


class Block(nn.Module):
    """A convolution without a norm between two convolutions with one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norm, self.last = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.last(self.third(self.second(self.norm(self.first(x)).relu()).relu()))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 4, 3, 2, 1), nn.Sequential(Block(), Block())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.stem(x))


def evaluating(network: nn.Module) -> nn.Module:
    """Give the norms of ``network`` statistics that change their input, and switch to evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(4, 9)
            nn.init.uniform_(module.weight, 0.2, 0.5)
    return network.double().eval()


def loss(network: nn.Module, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return uneven([network(torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator))])


def test_conv_module_of_mmcv() -> None:
    bricks = pytest.importorskip('mmcv.cnn')
    options = dict(padding=1, norm_cfg=dict(type='BN'), efficient_conv_bn_eval=True)
    network = evaluating(nn.Sequential(bricks.ConvModule(3, 6, 3, **options), bricks.ConvModule(6, 5, 3, **options)))
    selection = random_selection(network, 2)
    assert_equal_training(network, selection, loss, steps=3, optimizer='sgd')
    network[1].norm.train()  # a batch of training is computed layer by layer
    assert_equal_training(network, selection, loss, steps=3, optimizer='sgd')
    network[1].turn_on_efficient_conv_bn_eval(False)
    with CompactTraining(network, selection) as training:
        kinds = [route.kind.value for route in training.routes().values()]
    assert kinds[0] == 'fallback' != kinds[1]


@pytest.mark.parametrize('part', ['', 'layer', 'layer.1'])
def test_graph_of_mmengine(part: str) -> None:
    fusing = pytest.importorskip('mmengine.model.efficient_conv_bn_eval')
    network = evaluating(Net())
    fusing.turn_on_efficient_conv_bn_eval_for_single_model(network.get_submodule(part))
    assert_equal_training(network, random_selection(network, 2), loss, steps=3, optimizer='sgd')
