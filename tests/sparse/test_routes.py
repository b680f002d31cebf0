"""The cost rule, and what is counted as kept."""

import pytest
import torch
from torch import nn

from mmgps.sparse import saved_bytes
from mmgps.sparse.routes import Work


@pytest.mark.parametrize(
    ('distinct', 'chosen', 'kind'),
    [(9, 768, 'columns'), (60, 768, 'gather'), (60, 768 * 20, 'columns'), (180, 768 * 20, 'dense')],
)
def test_the_cheapest_route_is_taken(distinct: int, chosen: int, kind: str) -> None:
    work = Work(768, 192, distinct, chosen, distinct, 192, 'cpu')
    route = work.route()
    assert route.kind == kind
    assert work.costs()[kind] == min(work.costs().values())
    assert route.kept == (192 if kind == 'dense' else distinct)
    assert str(route) == f'{kind} ({route.kept}/192 inputs kept)'


def test_a_gather_pays_off_later_on_a_device_bound_by_memory() -> None:
    for device, kind in (('cpu', 'gather'), ('cuda', 'columns')):
        assert Work(768, 768, 60, 768, 60, 768, device).route().kind == kind


def test_saved_bytes_count_each_storage_once_and_no_parameter() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(8, 4)
    assert saved_bytes(lambda: layer(layer(x)), [*layer.parameters(), x]) == 8 * 4 * 4
    y = torch.randn(8, requires_grad=True)
    assert saved_bytes(lambda: y.exp() * y.exp().sin(), [y]) == 3 * 8 * 4
    assert saved_bytes(lambda: x * 2) == 0
