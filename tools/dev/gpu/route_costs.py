"""Cost of each route of a linear layer over a grid; the constants of the cost rule follow from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mmgps.benchmark.timing import synchronize
from mmgps.sparse.linear import LinearPlan, linear_plan
from mmgps.sparse.routes import GradientKernel, LayerCost

ROUTES = (GradientKernel.COLUMNS, GradientKernel.GATHER, GradientKernel.DENSE)
#: Positions, inputs and outputs of linear layers in DeiT-Tiny, ViT-B and ViT-L at the sizes of the step costs.
SIZES = ((12608, 192, 768), (12608, 768, 768), (12608, 768, 3072), (12608, 3072, 768), (10960, 1024, 4096))
TOY = ((256, 48, 96),)


def route_costs(device: str, toy: bool, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Yield the milliseconds of saving the input and of the gradient, for each size, K and share of the inputs."""
    for positions, fan_in, neurons in TOY if toy else SIZES:
        x, dy = (torch.randn(positions, width, device=device, dtype=dtype) for width in (fan_in, neurons))
        weight = torch.randn(neurons, fan_in, device=device, dtype=dtype)
        product = timed(partial(torch.matmul, dy, weight), device, toy)
        for k in (1, 5, 20):
            for share in (0.05, 0.2, 1.0):
                rows, columns = chosen(neurons, fan_in, k, share, device)
                row = dict(positions=positions, inputs=fan_in, neurons=neurons, k=k, distinct=len(columns.unique()))
                row.update(product_ms=product, **of_routes(x, dy, rows, columns, device, toy))
                yield row


def chosen(neurons: int, fan_in: int, k: int, share: float, device: str) -> tuple[Tensor, Tensor]:
    """Draw K connections per neuron from a share of the inputs."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randperm(fan_in, generator=generator)[: max(k, int(share * fan_in))]
    columns = torch.stack(
        [pool[torch.randperm(len(pool), generator=generator)[:k]].sort().values for _ in range(neurons)]
    )
    rows = torch.arange(neurons).repeat_interleave(k)
    return rows.to(device), columns.flatten().to(device)


def of_routes(x: Tensor, dy: Tensor, rows: Tensor, columns: Tensor, device: str, toy: bool) -> dict[str, float]:
    costs, found = LayerCost.costs, {}
    for kind in ROUTES:
        LayerCost.costs = lambda work, kind=kind: {kind: 0.0}  # type: ignore[method-assign, misc]
        try:
            plan: LinearPlan = linear_plan(rows, columns, dy.shape[1], x.shape[1])
        finally:
            LayerCost.costs = costs  # type: ignore[method-assign]
        bias = plan.makes_bias
        kept = plan.saved_input(x, bias)
        found[f'{kind.value}_keep_ms'] = timed(lambda plan=plan, bias=bias: plan.saved_input(x, bias), device, toy)
        found[f'{kind.value}_ms'] = timed(
            lambda plan=plan, bias=bias, kept=kept: plan.gradient(dy, kept, bias), device, toy
        )
    return found


def timed(run: Callable[[], object], device: str, toy: bool) -> float:
    """Return the median milliseconds of a run, in series of ten so that launches overlap as in a step."""
    times = []
    for _ in range(2 if toy else 5):
        synchronize(device)
        began = time.perf_counter()
        for _ in range(10):
            run()
        synchronize(device)
        times.append(1e2 * (time.perf_counter() - began))
    return median(times)
