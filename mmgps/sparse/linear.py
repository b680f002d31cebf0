"""Train connections of linear layers: the forward, and plans for the gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.rewiring import OwnForward

from .attach import GradientPlan, attach, constant, derivation_of, needs_grad
from .routes import MOSTLY, GradientKernel, LayerCost, Route, RowPick, chunks, wide_type
from .weight import TrainedWeight


class LinearForward(OwnForward):
    """The forward of one ``nn.Linear`` while numbers of its weight are trained.

    Args:
        owner: The layer.
        weight: Its weight.
    """

    def __init__(self, owner: nn.Linear, weight: TrainedWeight) -> None:
        super().__init__(owner)
        self._layer, self._values = owner, weight.values
        self.plan = linear_plan(weight.rows, weight.columns, weight.layout.neurons, weight.layout.fan_in)

    def __call__(self, input: Tensor) -> Tensor:
        return attached_linear(input, self._layer.weight, self._layer.bias, self._values, self.plan)


def attached_linear(x: Tensor, w: Tensor, b: Tensor | None, values: Tensor, plan: LinearPlan) -> Tensor:
    """``F.linear(x, w, b)``, made to depend on ``values``.

    The gradients of bias and values are sums over the same positions, so a plan that computes both reads the gradient
    of the output once less.
    """
    w = constant(w)
    if not needs_grad(values):
        return F.linear(x, w, b)
    if b is None or not b.requires_grad or not plan.makes_bias:
        return attach(_flat_linear(x, w, b), x, values, None, plan)
    return attach(_flat_linear(x, w, b.detach()), x, values, b, plan)


def dense_linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """``F.linear(x, w, b)`` with the gradient of the whole weight; saves no input that can be recomputed."""
    if not needs_grad(w) or derivation_of(x) is None:
        return F.linear(x, w, b)
    trained = b is not None and b.requires_grad
    y = _flat_linear(x, w.detach(), b.detach() if b is not None and trained else b)
    return attach(y, x, w, b if trained else None, WholeWeight(w))


def _flat_linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """``F.linear`` as one matrix product.

    With a frozen weight torch multiplies batch by batch, which is slow for many small batches, such as the
    ``[tokens, batch, width]`` of ``nn.MultiheadAttention``.
    """
    return F.linear(x.reshape(-1, x.shape[-1]), w, b).view(*x.shape[:-1], len(w))


def linear_plan(rows: Tensor, columns: Tensor, neurons: int, fan_in: int) -> LinearPlan:
    """The cheapest plan for ``y = x w^T``.

    Args:
        rows: Neuron of each chosen connection, int64 ``[chosen]``.
        columns: Its input, int64 ``[chosen]``.
        neurons: Size of the last dimension of ``y``.
        fan_in: Size of the last dimension of ``x``.
    """
    distinct, places = torch.unique(columns, return_inverse=True)
    work = LayerCost(neurons, fan_in, len(distinct), len(rows), len(distinct), fan_in, rows.device.type)
    route = work.route()
    if route.kind is GradientKernel.COLUMNS:
        made = LinearColumns if rows.device.type == 'cpu' else LaunchedColumns
        return made(route, rows + places * neurons, distinct)
    if route.kind is GradientKernel.DENSE:
        return LinearDense(route, rows, columns, neurons, fan_in)
    if len(distinct) > MOSTLY * fan_in:
        return LinearGather(route, rows, None, columns)
    return LinearGather(route, rows, distinct, places)


class LinearPlan(GradientPlan):
    """A plan of a linear layer."""

    makes_bias = True

    def contiguous_grad(self, dy: Tensor) -> Tensor:
        return dy.reshape(-1, dy.shape[-1]).view(dy.shape)


class LinearColumns(LinearPlan):
    """Saves the selected columns transposed, so that both factors lie in memory in the order of the product.

    An additional row of ones yields the gradient of the bias.
    """

    def __init__(self, route: Route, flat: Tensor, distinct: Tensor) -> None:
        self.route, self._flat, self._distinct = route, flat, distinct

    def saved_input(self, x: Tensor, bias: bool) -> Tensor:
        """``[distinct + bias, positions]``."""
        columns = x.reshape(-1, x.shape[-1]).t()
        if not bias:
            return columns.index_select(0, self._distinct)
        kept = x.new_empty(len(self._distinct) + 1, columns.shape[1])
        torch.index_select(columns, 0, self._distinct, out=kept[:-1])
        kept[-1] = 1
        return kept

    def saved_mapped_input(self, x: Tensor, bias: bool, then: Callable[[Tensor], Tensor]) -> Tensor:
        kept = self.saved_input(x, bias)
        chosen = kept[: len(self._distinct)]
        chosen.copy_(then(chosen))
        return kept

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        product = kept @ dy.view(-1, dy.shape[-1])
        return product.view(-1).index_select(0, self._flat), product[-1] if bias else None


class LaunchedColumns(LinearColumns):
    """The same product with few kernel launches, which dominate the time of small layers on a GPU.

    The columns are copied without transposition, which reads whole rows; the gradient of the bias is a separate sum.
    """

    def saved_input(self, x: Tensor, bias: bool) -> Tensor:
        """``[..., distinct]``."""
        return x.index_select(-1, self._distinct)

    def saved_mapped_input(self, x: Tensor, bias: bool, then: Callable[[Tensor], Tensor]) -> Tensor:
        return then(self.saved_input(x, bias))

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy = dy.view(-1, dy.shape[-1])
        product = kept.reshape(-1, kept.shape[-1]).t() @ dy
        return product.take(self._flat), dy.sum(0) if bias else None


class LinearGather(LinearPlan):
    """Multiplies and sums connection by connection."""

    def __init__(self, route: Route, rows: Tensor, distinct: Tensor | None, places: Tensor) -> None:
        self.route, self._distinct, self._places = route, distinct, places
        self._pick = RowPick(rows)

    def saved_input(self, x: Tensor, bias: bool) -> Tensor:
        """``[..., distinct]``, or ``x`` itself."""
        return x if self._distinct is None else x.index_select(-1, self._distinct)

    def saved_mapped_input(self, x: Tensor, bias: bool, then: Callable[[Tensor], Tensor]) -> Tensor:
        return then(self.saved_input(x, bias))

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy, x = dy.view(-1, dy.shape[-1]), kept.reshape(-1, kept.shape[-1])
        total = dy.new_zeros(len(self._places), dtype=wide_type(dy))
        offset = dy.new_zeros(dy.shape[-1], dtype=wide_type(dy)) if bias else None
        for part in chunks(len(dy), max(len(self._places), dy.shape[-1]), dy.device.type):
            picked = x[part].index_select(1, self._places).to(total.dtype)
            total += picked.mul_(self._pick(dy[part], 1)).sum(0)
            if offset is not None:
                offset += dy[part].sum(0, dtype=total.dtype)
        return total, offset


class LinearDense(LinearPlan):
    """Computes the gradient of the whole weight, picks the chosen numbers, and frees it.

    The product has the smaller of the two sizes as its rows, which is faster.
    """

    makes_bias = False

    def __init__(self, route: Route, rows: Tensor, columns: Tensor, neurons: int, fan_in: int) -> None:
        self.route, self._neurons_first = route, neurons <= fan_in
        self._flat = rows * fan_in + columns if self._neurons_first else columns * neurons + rows

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy, x = dy.view(-1, dy.shape[-1]), kept.reshape(-1, kept.shape[-1])
        whole = dy.t() @ x if self._neurons_first else x.t() @ dy
        return whole.view(-1).index_select(0, self._flat), None


class WholeWeight(LinearPlan):
    """Computes the gradient of all numbers of a weight, as full fine-tuning and masked training need it.

    Args:
        weight: ``[neurons, fan_in]``.
    """

    def __init__(self, weight: Tensor) -> None:
        self.route = Route(GradientKernel.DENSE, weight.shape[1], weight.shape[1], weight.numel())

    def gradient(self, dy: Tensor, kept: Tensor, bias: bool) -> tuple[Tensor, Tensor | None]:
        dy = dy.view(-1, dy.shape[-1])
        return dy.t() @ kept.reshape(-1, kept.shape[-1]), dy.sum(0) if bias else None
