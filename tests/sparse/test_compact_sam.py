"""SAM trained compactly and masked: every layer of its encoder has a route of its own."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from tiny_sam import build_sam
from training_pair import assert_equal_training, random_selection, take_routes_in_turn, uneven

from mmgps.sparse import CompactTraining
from mmgps.tuning import GPS


@pytest.fixture(params=[False, True], ids=['kept', 'recomputed'])
def backbone(request: pytest.FixtureRequest) -> nn.Module:
    encoder = build_sam().backbone.double()
    encoder.with_cp = request.param
    return encoder


def test_compact_equals_masked(backbone: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    take_routes_in_turn(monkeypatch)
    images = torch.randn(2, 3, 64, 64).double()

    def loss(network: nn.Module, step: int) -> torch.Tensor:
        return uneven(network(images + 0.01 * step))

    assert_equal_training(backbone, random_selection(backbone, 2), loss, optimizer='sgd')


def test_every_layer_has_a_route(backbone: nn.Module) -> None:
    selection = random_selection(backbone)
    with CompactTraining(backbone, selection) as training:
        routes, report = training.routes(), training.report()
    assert list(routes) == list(selection.connections) == list(GPS().candidates(backbone))
    assert {route.kind for route in routes.values()} <= {'columns', 'gather', 'dense'}
    kinds = ('patch_embed.proj', 'blocks.0.attn.qkv', 'blocks.1.attn.proj', 'blocks.1.mlp.lin2', 'neck.0', 'neck.2')
    assert all(f'{kind}.weight' in report for kind in kinds)
