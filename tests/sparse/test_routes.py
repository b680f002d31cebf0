"""The cost rule, and the count of saved bytes."""

import gc
import weakref

import pytest
import torch
from torch import nn

from mmgps.sparse import saved_bytes
from mmgps.sparse.linear import LaunchedColumns, LinearColumns
from mmgps.sparse.routes import GradientKernel, LayerCost, Route


@pytest.mark.parametrize(
    ('distinct', 'chosen', 'kind'),
    [(9, 768, 'columns'), (60, 768, 'gather'), (60, 768 * 20, 'columns'), (180, 768 * 20, 'dense')],
)
def test_the_cheapest_route_is_taken(distinct: int, chosen: int, kind: str) -> None:
    work = LayerCost(768, 192, distinct, chosen, distinct, 192, 'cpu')
    route = work.route()
    assert route.kind == kind
    assert work.costs()[kind] == min(work.costs().values())
    assert route.kept == (192 if kind == 'dense' else distinct)
    assert str(route) == f'{kind} ({route.kept}/192 inputs kept)'


def test_a_gather_pays_off_later_on_a_device_bound_by_memory() -> None:
    for device, kind in (('cpu', 'gather'), ('cuda', 'columns')):
        assert LayerCost(768, 768, 60, 768, 60, 768, device).route().kind == kind


def test_saved_bytes_count_each_storage_once_and_no_parameter() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(8, 4)
    assert saved_bytes(lambda: layer(layer(x)), [*layer.parameters(), x]) == 8 * 4 * 4
    y = torch.randn(8, requires_grad=True)
    assert saved_bytes(lambda: y.exp() * y.exp().sin(), [y]) == 3 * 8 * 4
    assert saved_bytes(lambda: x * 2) == 0


def test_counting_saved_bytes_leaves_no_graph_behind() -> None:
    x = torch.randn(8, requires_grad=True)
    alive: list[weakref.ref] = []

    def forward() -> torch.Tensor:
        y = x.exp()  # saves its own output
        alive.append(weakref.ref(y))
        return y.sum()

    assert saved_bytes(forward, [x]) == 8 * 4
    gc.collect()
    assert alive[0]() is None


@pytest.mark.parametrize('bias', [True, False])
def test_columns_in_few_launches_are_columns(bias: bool) -> None:
    rows, columns = torch.arange(12).repeat_interleave(3), torch.randint(0, 16, (36,))
    distinct, places = torch.unique(columns, return_inverse=True)
    route = Route(GradientKernel.COLUMNS, len(distinct), 16, 36)
    x, dy = torch.randn(4, 5, 16).double(), torch.randn(4, 5, 12).double()
    plans = [kind(route, rows + places * 12, distinct) for kind in (LinearColumns, LaunchedColumns)]
    (values, offset), (other, other_offset) = (plan.gradient(dy, plan.saved_input(x, bias), bias) for plan in plans)
    torch.testing.assert_close(values, (dy.view(-1, 12).t() @ x.view(-1, 16))[rows, columns])
    torch.testing.assert_close(other, values)
    assert (offset is None) == (other_offset is None) == (not bias)
    if bias:
        torch.testing.assert_close(other_offset, dy.sum((0, 1)))
        torch.testing.assert_close(offset, other_offset)
    late = [plan.gradient(dy, plan.saved_mapped_input(x, bias, torch.exp), bias)[0] for plan in plans]
    torch.testing.assert_close(late[0], (dy.view(-1, 12).t() @ x.view(-1, 16).exp())[rows, columns])
    torch.testing.assert_close(late[1], late[0])
