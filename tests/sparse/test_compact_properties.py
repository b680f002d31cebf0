"""The gradient of the chosen numbers against the dense one, over shapes that nobody picked."""

import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from torch import nn
from training_pair import random_selection

from mmgps.selection.roles import CONVOLUTIONS, TRANSPOSED
from mmgps.sparse import CompactTraining, routes

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
KINDS = st.sampled_from(['columns', 'gather', 'dense', None])
TYPES = st.sampled_from([(torch.float64, 1e-10), (torch.float32, 1e-4)])


def assert_gradient_is_dense(layer: nn.Module, x: torch.Tensor, k: int, kind: str | None, within: float) -> None:
    """Of the values as of the bias and the input, by the route ``kind``, or the cheapest."""
    x.requires_grad_(True)
    weight = torch.linspace(-1, 1, layer(x).numel(), dtype=x.dtype).view_as(layer(x))
    wanted = torch.autograd.grad((layer(x) * weight).sum(), [layer.weight, layer.bias, x])
    selection = random_selection(layer, k)
    [(parameter, connections)] = selection.resolve(layer)
    costs = routes.Work.costs
    try:
        if kind is not None:
            routes.Work.costs = lambda self: {routes.Kind(kind): 0.0}
        with CompactTraining(layer, selection) as training:
            values = training.replacements()[layer.weight]
            found = torch.autograd.grad((layer(x) * weight).sum(), [values, layer.bias, x])
    finally:
        routes.Work.costs = costs
    chosen = parameter.neurons.to_rows(wanted[0]).reshape(-1)[connections.positions]
    for one, other in zip(found, (chosen, *wanted[1:]), strict=True):
        torch.testing.assert_close(one.reshape(other.shape), other, rtol=within, atol=within * 100)


@QUICK
@given(st.lists(st.integers(0, 5), max_size=3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), KINDS, TYPES)
def test_linear(lead: list[int], fan_in: int, neurons: int, k: int, kind: str | None, exact: tuple) -> None:
    assume(k <= fan_in)
    layer = nn.Linear(fan_in, neurons).to(exact[0])
    assert_gradient_is_dense(layer, torch.randn(*lead, fan_in, dtype=exact[0]), k, kind, exact[1])


@QUICK
@example(1, 3, 2, 2, (1, 1, 0, 1), 1, True, 'columns', (torch.float64, 1e-10))  # groups of unequal size
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
    st.integers(1, 4),
    st.booleans(),
    KINDS,
    TYPES,
)
def test_convolution(
    dims: int, per_in: int, per_out: int, groups: int, moves: tuple, k: int,
    transposed: bool, kind: str | None, exact: tuple,
) -> None:  # fmt: skip
    kernel, stride, padding, dilation = moves
    shapes = TRANSPOSED if transposed else CONVOLUTIONS
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, dtype=exact[0])
    layer = shapes[dims - 1](per_in * groups, per_out * groups, kernel, **options)
    size = [5 + dim for dim in range(dims)]
    assume(k <= per_in * kernel**dims)
    reach = dilation * (kernel - 1) + 1
    assume(reach <= 5 + 2 * padding if not transposed else 4 * stride + reach > 2 * padding)
    assert_gradient_is_dense(layer, torch.randn(2, per_in * groups, *size, dtype=exact[0]), k, kind, exact[1])
