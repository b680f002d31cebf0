"""CUDA selects the same connections as the CPU, except for ties."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip('mmseg')

from architectures import BUILDERS, SIDE, build, maps
from training_pair import uneven

from mmgps.selection import Selection, sum_gradients
from mmgps.tuning import GPS

pytestmark = pytest.mark.gpu
NETWORKS = ('vit', 'swin', 'resnet', 'sam')


def summed(network: nn.Module, device: str, batches: list[Tensor]) -> dict[str, Tensor]:
    network = copy.deepcopy(network).to(device)
    network.train()
    values = {name: entry.value for name, entry in GPS().candidates(network).items()}
    found = sum_gradients(network, values, batches, lambda x: uneven(maps(network, x.to(device))))
    return {name: value.cpu() for name, value in found.items()}


def chosen(network: nn.Module, selection: Selection) -> dict[str, Tensor]:
    return {
        parameter.name: connections.mask(parameter.neurons) for parameter, connections in selection.resolve(network)
    }


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('name', [name for name in NETWORKS if name in BUILDERS])
def test_selection_is_that_of_the_cpu_but_for_ties(device: str, name: str, dtype: torch.dtype) -> None:
    network = build(name).to(dtype)
    batches = [torch.randn(2, 3, SIDE, SIDE, dtype=dtype) for _ in range(3)]
    expected, found = summed(network, 'cpu', batches), summed(network, device, batches)
    masks = [chosen(network, GPS(2).select(network, gradients)) for gradients in (expected, found)]
    allowed = 1e-10 if dtype is torch.float64 else 1e-4
    for parameter, _ in GPS(2).select(network, expected).resolve(network):
        score = expected[parameter.name].abs()
        rounding = allowed * float(score.max())
        assert (found[parameter.name] - expected[parameter.name]).abs().max() <= rounding, parameter.name
        rows = [parameter.neurons.to_rows(mask[parameter.name]) for mask in masks]
        scores = parameter.neurons.to_rows(score)
        for neuron in (rows[0] != rows[1]).any(1).nonzero().flatten().tolist():
            gap = scores[neuron][rows[0][neuron]].min() - scores[neuron][rows[1][neuron]].min()
            assert abs(float(gap)) <= 2 * rounding, f'{parameter.name}, neuron {neuron}: no tie'


def test_exact_ties_fall_as_on_the_cpu(device: str) -> None:
    network = nn.Sequential(nn.Linear(64, 32), nn.Conv2d(8, 16, 3), nn.ConvTranspose2d(8, 16, 3))
    values = {name: entry.value for name, entry in GPS().candidates(network).items()}
    gradients = {name: torch.randint(-2, 3, value.shape).float() for name, value in values.items()}
    for value in gradients.values():
        value[0] = 0  # neurons without a gradient
    for k in (1, 3):
        expected = chosen(network, GPS(k).select(network, gradients))
        moved = copy.deepcopy(network).to(device)
        on_device = {name: value.to(device) for name, value in gradients.items()}
        found = chosen(moved, GPS(k).select(moved, on_device))
        assert {name: torch.equal(found[name].cpu(), mask) for name, mask in expected.items()} == dict.fromkeys(
            expected, True
        )
