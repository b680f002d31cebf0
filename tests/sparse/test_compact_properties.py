"""The gradient of the chosen numbers against the dense gradient, for random shapes, types and counts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from gradient_pair import EXACT, Exact, assert_equal_gradients
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from torch import nn
from training_pair import ROUTES

from mmgps.rewiring import CONVOLUTIONS, TRANSPOSED
from mmgps.sparse.routes import GradientKernel

QUICK = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
KINDS = st.sampled_from([*ROUTES, None])
TYPES = st.sampled_from(EXACT)
COUNTS = st.integers(1, 20)
pytestmark = pytest.mark.filterwarnings('ignore:k=.* exceeds the fan-in')


@QUICK
@given(st.lists(st.integers(0, 5), max_size=3), st.integers(1, 24), st.integers(1, 9), COUNTS, KINDS, TYPES)
def test_linear(lead: list[int], fan_in: int, neurons: int, k: int, route: GradientKernel | None, exact: Exact) -> None:
    assert_equal_gradients(nn.Linear(fan_in, neurons), torch.randn(*lead, fan_in), k, route, exact)


@dataclass(frozen=True)
class Shape:
    """A convolution; kernel, stride, padding and dilation have one number per dimension.

    Args:
        transposed: Whether it is a transposed convolution.
        groups: Groups; in a depthwise convolution each has one input.
        per_in: Inputs per group.
        per_out: Outputs per group.
    """

    transposed: bool
    groups: int
    per_in: int
    per_out: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def layer(self) -> nn.Module:
        made = (TRANSPOSED if self.transposed else CONVOLUTIONS)[len(self.kernel) - 1]
        moves = dict(stride=self.stride, padding=self.padding, dilation=self.dilation)
        return made(self.groups * self.per_in, self.groups * self.per_out, self.kernel, groups=self.groups, **moves)

    def fits(self, sizes: list[int]) -> bool:
        """Whether inputs of ``sizes`` produce an output."""
        moves = zip(sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        if self.transposed:
            return all((n - 1) * s + d * (k - 1) + 1 > 2 * p for n, k, s, p, d in moves)
        return all(d * (k - 1) + 1 <= n + 2 * p for n, k, s, p, d in moves)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    dims, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3, 6]))
    counts = (draw(st.integers(1, 3 if groups < 6 else 1)) for _ in range(2))
    moves = [tuple(draw(st.integers(*ends)) for _ in range(dims)) for ends in ((1, 3), (1, 3), (0, 2), (1, 2))]
    return Shape(draw(st.booleans()), groups, *counts, *moves)


@QUICK
@example(Shape(True, 2, 3, 2, (1,), (1,), (0,), (1,)), 1, GradientKernel.COLUMNS, EXACT[0])  # groups of unequal size
@example(Shape(False, 6, 1, 1, (3, 2), (1, 2), (2, 0), (2, 1)), 20, GradientKernel.GATHER, EXACT[0])
@given(shapes(), COUNTS, KINDS, TYPES)
def test_convolution(shape: Shape, k: int, route: GradientKernel | None, exact: Exact) -> None:
    sizes = [5 + dim for dim in range(len(shape.kernel))]
    assume(shape.fits(sizes))
    assert_equal_gradients(shape.layer(), torch.randn(2, shape.groups * shape.per_in, *sizes), k, route, exact)


class Attends(nn.Module):
    """Attention of a sequence to itself, to another, or with keys and values from two sequences."""

    def __init__(self, places: int, heads: int, each: int, **options: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(heads * each, heads, **options)
        self.places = places

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other, third = 0.5 * x, x - 1
        query, key, value = [(x, x, x), (x, other, other), (x, other, third)][self.places - 1]
        return self.attention(query, key, value, need_weights=False)[0]


@QUICK
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.booleans(), st.booleans(),
    COUNTS, KINDS, TYPES,
)  # fmt: skip
def test_attention(
    places: int, heads: int, each: int, tokens: int, bias: bool, batch_first: bool,
    k: int, route: GradientKernel | None, exact: Exact,
) -> None:  # fmt: skip
    network = Attends(places, heads, each, bias=bias, batch_first=batch_first)
    assert_equal_gradients(network, torch.randn(2, tokens, heads * each), k, route, exact)
