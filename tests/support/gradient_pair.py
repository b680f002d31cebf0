"""Compare the gradients of masked and compact training of one layer over two steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from training_pair import random_selection

from mmgps.sparse import CompactTraining, MaskedTraining
from mmgps.sparse.routes import GradientKernel, LayerCost
from mmgps.tuned import Tuned, method_for


@dataclass(frozen=True)
class Exact:
    """A dtype, and the tolerated error relative to the largest value of a gradient."""

    dtype: torch.dtype
    within: float


FLOAT32 = Exact(torch.float32, 1e-5)
#: Half-precision types round outputs, gradients and, after each step, weights once more.
EXACT = (
    Exact(torch.float64, 1e-12), FLOAT32, Exact(torch.bfloat16, 16 * 2**-8), Exact(torch.float16, 16 * 2**-11),
)  # fmt: skip


def supported(network: nn.Module, x: Tensor, exact: Exact) -> Exact:
    """Return ``exact``, or float32 if torch lacks an operation for its dtype on this device."""
    try:
        x = x.to(exact.dtype, copy=True).requires_grad_()
        copy.deepcopy(network).to(exact.dtype)(x).sum().backward()
    except RuntimeError as error:
        if 'not implemented' not in str(error):
            raise
        return FLOAT32
    return exact


def gradients(kind: type, network: nn.Module, k: int, run: Callable[[nn.Module], Tensor]) -> list[Tensor]:
    """Return the gradients of all trained values at the start and after a step of gradient descent."""
    network, found = copy.deepcopy(network), []
    selection = random_selection(network, k)
    training = Tuned(network, selection, method_for(selection), '', kind).training
    training.start()
    resolved = list(selection.resolve(network))
    held = [training.replacements().get(parameter.value, parameter.value) for parameter, _ in resolved]
    whole = [network.get_parameter(name) for name in selection.whole]
    for _ in range(2):
        for value in (*held, *whole):
            value.grad = None
        run(network).backward()
        training.before_step()
        for (parameter, connections), value in zip(resolved, held, strict=True):
            dense = value is parameter.value
            rows = parameter.neurons.to_rows(value.grad).reshape(-1)[connections.positions] if dense else value.grad
            found.append(rows.reshape(-1).clone())
        found += [value.grad.clone() for value in whole]
        with torch.no_grad():
            for value in (*held, *whole):
                value -= 0.01 * value.grad
        training.after_step()
    return found


def assert_equal_gradients(network: nn.Module, x: Tensor, k: int, route: GradientKernel | None, exact: Exact) -> None:
    """Assert equal gradients of chosen values, biases and input, by ``route`` or by the cheapest route."""
    exact = supported(network, x, exact)
    network, x = network.to(exact.dtype), x.to(exact.dtype)
    inputs: list[Tensor] = []

    def run(net: nn.Module) -> Tensor:
        inputs.append(x.clone().requires_grad_())
        y = net(inputs[-1])
        return (y.square() * torch.linspace(0.5, 1, y.numel()).to(y).view_as(y)).sum()

    costs = LayerCost.costs
    try:
        if route is not None:
            LayerCost.costs = lambda self: {route: 0.0}
        wanted, found = (gradients(kind, network, k, run) for kind in (MaskedTraining, CompactTraining))
    finally:
        LayerCost.costs = costs
    wanted += [x.grad for x in inputs[:2]]
    found += [x.grad for x in inputs[2:]]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype is other.dtype
        most = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=0, atol=exact.within * max(most, 1e-2))
