"""Roles and neurons of parameters."""

import itertools

import pytest
import torch
from torch import nn

from mmgps.selection import Role, describe


class LayerNorm2d(nn.Module):
    """In no table: recognised by its pair of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.bias = nn.Parameter(torch.zeros(3))


class GRN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, 1, 1, 3).squeeze())
        self.beta = nn.Parameter(torch.zeros(3))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias_like_name = nn.Linear(3, 3)
        self.norm_like_name = nn.Linear(3, 3, bias=False)
        self.gamma = nn.Parameter(torch.ones(3))
        self.temperature = nn.Parameter(torch.ones(2, 1, 1))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 3))
        self.pos_embed = nn.Parameter(torch.zeros(1, 7, 3))
        self.rel_pos_h = nn.Parameter(torch.zeros(5, 3))


def roles(module: nn.Module) -> dict[str, str]:
    return {name: entry.role.value for name, entry in describe(module).items()}


def test_owner_type_decides_and_not_the_name() -> None:
    assert roles(Block()) == {
        'gamma': 'scale',
        'temperature': 'scale',
        'cls_token': 'embedding',
        'pos_embed': 'embedding',
        'rel_pos_h': 'other',
        'bias_like_name.weight': 'connection',
        'bias_like_name.bias': 'bias',
        'norm_like_name.weight': 'connection',
    }


@pytest.mark.parametrize(
    'norm',
    [nn.BatchNorm2d(3), nn.SyncBatchNorm(3), nn.GroupNorm(1, 3), nn.LayerNorm(3), LayerNorm2d(), GRN()],
    ids=lambda norm: type(norm).__name__,
)
def test_norms_and_their_offsets(norm: nn.Module) -> None:
    entries = list(describe(norm).values())
    assert [entry.role for entry in entries] == [Role.NORM, Role.NORM]
    assert [entry.is_bias for entry in entries] == [False, True]


def test_attention_embedding_and_recurrent_layers() -> None:
    assert roles(nn.MultiheadAttention(4, 2)) == {
        'in_proj_weight': 'connection',
        'in_proj_bias': 'bias',
        'out_proj.weight': 'connection',
        'out_proj.bias': 'bias',
    }
    split = roles(nn.MultiheadAttention(4, 2, kdim=6, add_bias_kv=True))
    assert split['k_proj_weight'] == 'connection'
    assert split['bias_k'] == 'embedding'
    assert roles(nn.Embedding(4, 2)) == {'weight': 'embedding'}
    assert set(roles(nn.LSTM(3, 4)).values()) == {'connection', 'bias'}


def test_a_tied_parameter_counts_once_and_as_connections() -> None:
    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleDict({'embedding': embedding, 'head': head})
    described = describe(model)
    assert list(described) == ['embedding.weight']
    assert described['embedding.weight'].role is Role.CONNECTION
    assert described['embedding.weight'].owner is head


def test_swin_tables_are_position_biases() -> None:
    swin = pytest.importorskip('mmseg.models.backbones.swin')
    assert roles(swin.WindowMSA(8, 2, (3, 3)))['relative_position_bias_table'] == 'position_bias'


def test_beit_vectors_are_biases() -> None:
    beit = pytest.importorskip('mmseg.models.backbones.beit')
    found = describe(beit.BEiTAttention(8, 2, (3, 3)))
    assert found['q_bias'].is_bias
    assert found['relative_position_bias_table'].role is Role.POSITION_BIAS


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
