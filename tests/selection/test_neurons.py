import itertools

import pytest
import torch
from torch import nn

from mmgps.selection import describe


def rows_by_loop(weight: torch.Tensor, transposed: bool, groups: int) -> list[list[float]]:
    """The connections of each output channel, from the definition of the operation."""
    if not transposed:
        return [weight[n].flatten().tolist() for n in range(weight.shape[0])]
    rows = []
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    for group, out in itertools.product(range(groups), range(outputs)):
        rows.append([v for i in range(inputs) for v in weight[group * inputs + i, out].flatten().tolist()])
    return rows


LAYERS = [
    (nn.Linear(5, 3), False, 1),
    (nn.Conv1d(4, 6, 3), False, 1),
    (nn.Conv2d(4, 6, 3), False, 1),
    (nn.Conv2d(4, 6, 3, groups=2), False, 2),
    (nn.Conv2d(4, 4, 3, groups=4), False, 4),
    (nn.Conv3d(2, 3, 2), False, 1),
    (nn.ConvTranspose1d(4, 6, 3), True, 1),
    (nn.ConvTranspose2d(4, 6, 3), True, 1),
    (nn.ConvTranspose2d(4, 6, 3, groups=2), True, 2),
    (nn.ConvTranspose3d(2, 3, 2), True, 1),
]


@pytest.mark.parametrize(('layer', 'transposed', 'groups'), LAYERS, ids=[str(layer) for layer, *_ in LAYERS])
def test_rows_hold_the_inputs_of_each_neuron(layer: nn.Module, transposed: bool, groups: int) -> None:
    layout = describe(layer)['weight'].neurons
    rows = layout.to_rows(layer.weight)
    assert rows.tolist() == rows_by_loop(layer.weight.detach(), transposed, groups)
    assert (layout.neurons, layout.fan_in) == rows.shape
    assert torch.equal(layout.from_rows(rows), layer.weight)


@pytest.mark.parametrize(('layer', 'transposed', 'groups'), LAYERS, ids=[str(layer) for layer, *_ in LAYERS])
def test_a_neuron_is_what_its_row_alone_can_change(layer: nn.Module, transposed: bool, groups: int) -> None:
    """Zeroing row n of the weight changes output channel n and no other."""
    layout = describe(layer)['weight'].neurons
    inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    dims = 0 if isinstance(layer, nn.Linear) else layer.weight.dim() - 2
    x = torch.rand(1, inputs, *[4] * dims) + 1
    before = layer(x)
    rows = layout.to_rows(layer.weight.detach().clone())
    rows[layout.neurons - 1] += 1
    with torch.no_grad():
        original = layer.weight.clone()
        layer.weight.copy_(layout.from_rows(rows))
        changed = (layer(x) - before).abs().flatten(2).sum((0, 2)) if dims else (layer(x) - before).abs()[0]
        layer.weight.copy_(original)
    assert (changed > 0).nonzero().flatten().tolist() == [layout.neurons - 1]
