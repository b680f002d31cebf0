"""The choice of GPS on real architectures against a loop over neurons that shares no code with it."""

import heapq

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from zoo import BACKBONES, zoo_backbone

from mmgps.selection import sum_gradients
from mmgps.tuning import GPS

NORMS = (nn.LayerNorm, nn.BatchNorm2d)


def slow_choice(backbone: nn.Module, gradients: dict[str, torch.Tensor], k: int) -> dict[str, list[int]]:
    """The k best of each row of each Linear, Conv2d and attention projection; the lower column wins ties."""
    chosen = {}
    for path, module in backbone.named_modules():
        assert not isinstance(module, nn.ConvTranspose2d)
        for attribute in ('weight', 'in_proj_weight'):
            weight = getattr(module, attribute, None)
            if not isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention) or weight is None:
                continue
            name = f'{path}.{attribute}'
            chosen[name] = []
            for neuron, row in enumerate(gradients[name]):
                values = [abs(value) for value in row.flatten().tolist()]
                best = heapq.nsmallest(k, range(len(values)), key=lambda at, v=values: (-v[at], at))
                chosen[name] += [neuron * len(values) + column for column in sorted(best)]
    return chosen


@pytest.mark.parametrize(
    ('name', 'k'), [(name, 1) for name in BACKBONES if name != 'mobilenetv2'] + [('mobilenetv2', 20)]
)
@pytest.mark.filterwarnings('ignore:k=20 exceeds the fan-in')
def test_choice_per_neuron_equals_a_slow_loop(name: str, k: int) -> None:
    backbone = zoo_backbone(name)
    method = GPS(k)
    weights = {key: entry.value for key, entry in method.candidates(backbone).items()}
    images = [torch.randn(2, 3, 64, 64) for _ in range(2)]
    gradients = sum_gradients(backbone, weights, images, lambda x: sum(level.square().mean() for level in backbone(x)))
    selection = method.select(backbone, gradients)
    found = {key: item.positions.tolist() for key, item in selection.connections.items()}
    assert found == slow_choice(backbone, gradients, k)


@pytest.mark.parametrize('name', BACKBONES)
def test_every_parameter_of_the_zoo_is_known(name: str) -> None:
    """Every parameter has a role, and exactly the parameters of torch's norm layers have the role of a norm."""
    from mmgps.selection import Role, describe

    backbone = zoo_backbone(name)
    norms = {
        f'{path}.{attribute}'
        for path, module in backbone.named_modules()
        if isinstance(module, NORMS)
        for attribute, _ in module.named_parameters(recurse=False)
    }
    described = describe(backbone)
    assert [key for key, entry in described.items() if entry.role is Role.OTHER] == []
    assert {key for key, entry in described.items() if entry.role is Role.NORM} == norms
