"""Plans of linear layers."""

from __future__ import annotations

import torch
from torch import Tensor

from .attach import Plan
from .picking import RowPick, chunks, wide_type
from .routes import MOSTLY, Route, Work


def linear_plan(rows: Tensor, columns: Tensor, neurons: int, fan_in: int) -> Plan:
    """The cheapest plan for ``y = x w^T``.

    Args:
        rows: Neuron of each chosen connection, int64 ``[chosen]``.
        columns: Its input, int64 ``[chosen]``.
        neurons: Size of the last dimension of ``y``.
        fan_in: Size of the last dimension of ``x``.
    """
    distinct, places = torch.unique(columns, return_inverse=True)
    work = Work(neurons, fan_in, len(distinct), len(rows), len(distinct), fan_in, rows.device.type)
    return linear_plan_of(work.route(), rows, columns, distinct, places)


def linear_plan_of(route: Route, rows: Tensor, columns: Tensor, distinct: Tensor, places: Tensor) -> Plan:
    """The plan of a given route; ``columns = distinct[places]``."""
    if route.kind == 'columns':
        return LinearColumns(route, rows, distinct, places)
    if route.kind == 'dense':
        return LinearDense(route, rows, columns)
    if len(distinct) > MOSTLY * route.inputs:
        return LinearGather(route, rows, None, columns)
    return LinearGather(route, rows, distinct, places)


class LinearColumns:
    """Keeps the selected columns, transposed: both factors of the product then lie in memory as it reads them."""

    def __init__(self, route: Route, rows: Tensor, distinct: Tensor, places: Tensor) -> None:
        self.route, self._rows, self._distinct, self._places = route, rows, distinct, places

    def keep(self, x: Tensor) -> Tensor:
        """``[distinct, positions]``."""
        return x.reshape(-1, x.shape[-1]).t().index_select(0, self._distinct)

    def gradient(self, dy: Tensor, kept: Tensor) -> Tensor:
        product = kept @ dy.reshape(-1, dy.shape[-1])
        return product.view(-1).index_select(0, self._places * dy.shape[-1] + self._rows)


class LinearGather:
    """Multiplies and adds up connection by connection."""

    def __init__(self, route: Route, rows: Tensor, distinct: Tensor | None, places: Tensor) -> None:
        self.route, self._distinct, self._places = route, distinct, places
        self._pick = RowPick(rows)

    def keep(self, x: Tensor) -> Tensor:
        """``[..., distinct]``, or ``x`` itself."""
        return x if self._distinct is None else x.index_select(-1, self._distinct)

    def gradient(self, dy: Tensor, kept: Tensor) -> Tensor:
        dy, x = dy.reshape(-1, dy.shape[-1]), kept.reshape(-1, kept.shape[-1])
        total = dy.new_zeros(len(self._places), dtype=wide_type(dy))
        for part in chunks(len(dy), len(self._places), dy.device.type):
            total += (self._pick(dy[part], 1) * x[part].index_select(1, self._places)).sum(0, dtype=total.dtype)
        return total


class LinearDense:
    """Makes the whole gradient, picks, and frees it."""

    def __init__(self, route: Route, rows: Tensor, columns: Tensor) -> None:
        self.route, self._flat = route, rows * route.inputs + columns

    def keep(self, x: Tensor) -> Tensor:
        return x

    def gradient(self, dy: Tensor, kept: Tensor) -> Tensor:
        whole = dy.reshape(-1, dy.shape[-1]).t() @ kept.reshape(-1, kept.shape[-1])
        return whole.view(-1).index_select(0, self._flat)
