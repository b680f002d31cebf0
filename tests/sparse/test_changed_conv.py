"""Convolutions whose geometry the network changes after it made them, as mmseg's MobileNetV3 does to dilate."""

import torch
from torch import nn
from training_pair import assert_equal_training, random_selection


def test_a_padding_that_was_set_after_construction() -> None:
    net = nn.Sequential(nn.Conv2d(4, 6, 5, padding=2), nn.Conv2d(6, 6, 3, padding=1, groups=6)).double()
    for layer, padding in zip(net, (4, 2), strict=True):
        layer.dilation, layer.padding = (2, 2), (padding, padding)
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    assert net(x).shape == (2, 6, 8, 9)
    assert_equal_training(net, random_selection(net), lambda model, step: model(x).square().sum(), steps=3)
