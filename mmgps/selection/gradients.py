"""The selection pass: sum the gradients of the task loss over the training data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .roles import describe
from .scores import Accumulation, GradientSum
from .selection import Selection

MAX_HALVINGS = 24


class NonFiniteGradientError(ArithmeticError):
    """A gradient of the selection pass contains NaN or infinity."""


class UnreachedError(RuntimeError):
    """The loss of the selection pass depends on none of the weights to choose from."""


class EmptyLoaderError(ValueError):
    """The selection pass received no batch."""


def sum_gradients(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    batches: Iterable[Any],
    loss: Callable[[Any], Tensor | Iterable[Tensor]],
    loss_scale: float | None = None,
    accumulation: Accumulation | None = None,
    any_rank: Callable[[bool], bool] | None = None,
    on_host: bool = False,
) -> dict[str, Tensor]:
    """Accumulate the gradient of ``loss`` over all ``batches``, by default as a sum.

    The model is left unchanged, see :func:`preserved`. Gradients of other parameters are never computed. The peak
    memory includes one dense gradient of ``parameters``, and separate sums of the same size with ``loss_scale``, with
    an ``accumulation`` other than the sum, or for parameters of less than 32 bits, whose sums are float32.

    Args:
        model: The model, in the mode in which it shall run.
        parameters: The parameters of ``model`` whose gradients are needed, by name.
        batches: Arguments of ``loss``.
        loss: Maps a batch to its scalar loss, or to several losses, each of which is differentiated before the next one
            is computed. It enters autocast if needed.
        loss_scale: Factor that keeps float16 gradients from vanishing. If a gradient overflows, it is halved and the
            batch repeated. It is divided out of the sums.
        accumulation: The sum by default.
        any_rank: Combines a flag of all processes by "or". With ``loss_scale``, processes that communicate within a
            forward pass need it to repeat a batch together.
        on_host: Whether to move each gradient to host memory as soon as it exists, so that the device holds one at a
            time. The sums are then kept on the host.

    Returns:
        Name to accumulated gradient, float32 or wider, in the parameter's shape unless ``accumulation`` uses another.
        A parameter that the loss does not reach has a gradient of zero.

    Raises:
        EmptyLoaderError: If there is no batch.
        NonFiniteGradientError: Names the layers.
        UnreachedError: If the loss reaches none of ``parameters``.
    """
    accumulation = accumulation or GradientSum()
    narrow = any(value.dtype.itemsize < 4 for value in parameters.values())
    aside = on_host or loss_scale is not None or narrow or not isinstance(accumulation, GradientSum)
    with preserved(model):
        for value in model.parameters():
            value.requires_grad_(False)
            value.grad = None
        for value in parameters.values():
            value.requires_grad_(True)
        count = 0
        if aside:
            taker = (HostGradients if on_host else DeviceGradients)(parameters)
            sums = {name: taker.stored(accumulation.zeros(value)) for name, value in parameters.items()}
            try:
                for count, batch in enumerate(batches, 1):  # noqa: B007
                    loss_scale = _add_scaled(sums, taker, batch, loss, loss_scale, accumulation, any_rank)
            finally:
                taker.close()
        else:
            for count, batch in enumerate(batches, 1):  # noqa: B007
                _differentiate(loss(batch), 1.0, parameters)
            sums = _taken(parameters)
    if count == 0:
        raise EmptyLoaderError(
            'the selection pass received no batch, since the training data loader is empty; check its data set'
        )
    _check_finite(sums)
    return sums


def _differentiate(losses: Tensor | Iterable[Tensor], scale: float, parameters: Mapping[str, nn.Parameter]) -> None:
    for loss in [losses] if isinstance(losses, Tensor) else losses:
        if not loss.requires_grad:
            raise UnreachedError(
                f'the loss of the selection pass depends on none of the {len(parameters)} weights to choose from, '
                f'first {next(iter(parameters))!r}: they compute within torch.no_grad, or within a reentrant '
                'checkpoint whose input needs no gradient since everything before it is frozen; remove use_checkpoint '
                'or with_cp from the backbone, or make it call torch.utils.checkpoint with use_reentrant=False'
            )
        torch.autograd.backward(loss * scale if scale != 1 else loss)


def _taken(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(value, requires_grad=False) if value.grad is None else value.grad
        for name, value in parameters.items()
    }


class DeviceGradients:
    """Reads the gradients of a batch where autograd leaves them.

    Args:
        parameters: Name to parameter.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = parameters

    def stored(self, total: Tensor) -> Tensor:
        """``total`` on the device that keeps the sums."""
        return total

    def take(self) -> dict[str, Tensor]:
        """Remove all existing gradients from the parameters, and return them by name."""
        found = {name: value.grad for name, value in self.parameters.items() if value.grad is not None}
        for value in self.parameters.values():
            value.grad = None
        return found

    def close(self) -> None:
        """Remove all hooks."""


class HostGradients(DeviceGradients):
    """Moves the gradients of a batch to host memory, from construction to :meth:`close`."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(parameters)
        self._found: dict[str, Tensor] = {}
        self._handles: list[Any] = [
            value.register_post_accumulate_grad_hook(partial(self._move, name))  # type: ignore[no-untyped-call]
            for name, value in parameters.items()
        ]

    def stored(self, total: Tensor) -> Tensor:
        return total.cpu()

    def take(self) -> dict[str, Tensor]:
        found, self._found = self._found, {}
        return found

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _move(self, name: str, value: Tensor) -> None:
        assert value.grad is not None
        gradient, value.grad = value.grad.cpu(), None
        self._found[name] = self._found[name].add_(gradient) if name in self._found else gradient


def _add_scaled(
    sums: dict[str, Tensor],
    taker: DeviceGradients,
    batch: Any,
    loss: Callable[[Any], Tensor | Iterable[Tensor]],
    scale: float | None,
    accumulation: Accumulation,
    any_rank: Callable[[bool], bool] | None,
) -> float | None:
    """Add one batch to the sums and return the scale that did not overflow."""
    for _ in range(MAX_HALVINGS):
        _differentiate(loss(batch), scale or 1.0, taker.parameters)
        gradients = taker.take()
        if scale is None:
            break
        overflowed = bool(_non_finite(gradients))
        if not (any_rank(overflowed) if any_rank else overflowed):
            break
        scale /= 2
    for name, gradient in gradients.items():
        accumulation.add(sums[name], gradient.to(sums[name].dtype), 1 / (scale or 1.0))
    return scale


def _non_finite(gradients: Mapping[str, Tensor]) -> list[str]:
    return [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]


def _check_finite(sums: Mapping[str, Tensor]) -> None:
    bad = _non_finite(sums)
    if bad:
        raise NonFiniteGradientError(
            f'the summed gradient holds NaN or infinity in {len(bad)} of {len(sums)} layers, first in {bad[0]!r}; '
            'check the loss on the training data, or select in float32 or bfloat16 if this was float16'
        )


PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)

SAMPLE = 100_000
"""Maximum count of numbers to sort per layer; larger layers are sampled at equal steps."""


@dataclass(frozen=True)
class Quantiles:
    """Magnitudes of accumulated gradients at :data:`PROBABILITIES`.

    Args:
        of_all: Quantiles of all connections of a layer.
        of_chosen: Quantiles of its chosen connections.
    """

    of_all: tuple[float, ...]
    of_chosen: tuple[float, ...]


def gradient_quantiles(
    backbone: nn.Module, selection: Selection, gradients: Mapping[str, Tensor]
) -> dict[str, Quantiles]:
    """Quantiles of the gradients of each weight with chosen connections.

    Args:
        backbone: The network that ``selection`` was made for.
        selection: The chosen connections.
        gradients: Accumulated gradients by weight. If there are several per connection, the first one counts: the sum.
    """
    found = {}
    described = describe(backbone)
    for name, connections in selection.connections.items():
        if name in gradients and len(connections):
            gradient = gradients[name].reshape(-1, *described[name].value.shape)[0]
            rows = described[name].neurons.to_rows(gradient).abs().reshape(-1)
            chosen = rows[connections.positions.to(rows.device)]
            found[name] = Quantiles(_quantiles(rows), _quantiles(chosen))
    return found


def _quantiles(values: Tensor) -> tuple[float, ...]:
    sample = values[:: max(1, len(values) // SAMPLE)].double()
    return tuple(torch.quantile(sample, torch.tensor(PROBABILITIES, dtype=torch.double, device=sample.device)).tolist())


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restore on exit everything that a forward and backward pass changes.

    These are buffers (BN statistics), training flags, ``requires_grad``, gradients, and the random state of Python,
    NumPy and torch, on the CPU and on the CUDA devices that hold the model. Weights are not copied, since a pass
    without an optimizer does not change them.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(value, value.requires_grad, value.grad) for value in model.parameters()]
    devices = sorted({t.device.index for t in [*model.parameters(), *model.buffers()] if t.is_cuda})
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, training in modes:
            module.training = training
        for value, requires_grad, gradient in parameters:
            value.requires_grad_(requires_grad)
            value.grad = gradient
