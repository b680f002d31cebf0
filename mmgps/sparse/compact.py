"""Compact training: the chosen numbers of a weight form one small parameter, for about the cost of bias tuning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from mmgps.rewiring import Call
from mmgps.selection import Selection

from .changes import LateComparisons, values_and_agreed, weights_and_agreed, with_changed_values, with_changed_weights
from .install import Handle, Installer, register, unregister
from .optimizers import check_elementwise, lift
from .routes import Route
from .weight import TrainedWeight, is_sharded


class CompactTraining:
    """Trains the chosen connections as small parameters of their own.

    The dense weights stay in their modules and receive the new numbers after each step. The small parameters are
    children of their layers (:class:`ChosenConnections`) unless :meth:`start` is told otherwise; the state dict is that
    of the base either way. The result equals :class:`MaskedTraining` up to rounding, for optimizers that step each
    number by itself (:meth:`check_optimizer`).

    Values that change between two steps are copied into the weights before the next forward pass, and numbers written
    into a weight are copied into the values before the next step. A compiled forward pass does not look for changed
    values. On other devices than the CPU, a write through ``.data`` between two training steps is found only one step
    later, to avoid waiting for the device, and then raises an error.

    Build it when the backbone is on its device; :meth:`close`, or leaving it as a context, restores the modules.

    Args:
        backbone: The network that ``selection`` was made for.
        selection: What is trained.
        any_optimizer: Whether :meth:`check_optimizer` accepts every optimizer. One that treats a tensor as a whole then
            treats the values, ``[neurons, k]``, instead of the weight.

    Raises:
        SelectionMismatchError: If the selection was made for another network.
    """

    def __init__(self, backbone: nn.Module, selection: Selection, any_optimizer: bool = False) -> None:
        self._backbone, self._any_optimizer = backbone, any_optimizer
        self._weights = [
            TrainedWeight(parameter, connections) for parameter, connections in selection.resolve(backbone)
        ]
        self._handles: list[Handle] = []
        self._routes: dict[str, Route] = {}
        self._required: list[bool] = []
        self._watching = self._compiled = self._registered = False
        self._suspicious, self._mode = True, backbone.training
        self._comparisons = LateComparisons()

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        return {weight.dense: weight.values for weight in self._weights}

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Make sure that ``optimizer`` steps each number by itself, unless ``any_optimizer`` is set.

        Raises:
            ValueError: If the optimizer is not known to do so.
        """
        if self._weights and not self._any_optimizer:
            check_elementwise(optimizer)

    def routes(self) -> dict[str, Route]:
        """Weight name to the route of its gradient; for a tied weight, that of its first owner."""
        return dict(self._routes)

    def follow(self) -> None:
        """Move the values to where the weights have moved since construction: to another device, or into shards."""
        for weight in self._weights:
            weight.follow()

    def start(self, registered: bool = True) -> None:
        """Read the values from the weights, and install the computation of their gradients.

        Args:
            registered: See :meth:`SparseTraining.start`.

        Raises:
            RuntimeError: If the backbone has changed its device or type since construction, without :meth:`follow`.
        """
        self.close()
        self._required = [weight.dense.requires_grad for weight in self._weights]
        for weight in self._weights:
            _check_place(weight)
            weight.dense.requires_grad_(False)
            weight.read()
        lift(weight.dense for weight in self._weights)
        self._registered = registered
        if registered:
            register(self._weights, self._backbone)
        installer = Installer(self._weights)
        installer.install(self._backbone)
        forward, saving = Call(self._before_forward), Call(self._before_saving)
        self._handles, self._routes = list(installer.handles), installer.routes
        if not self._weights:
            return
        self._handles += [
            self._backbone.register_forward_pre_hook(forward),
            self._backbone.register_state_dict_pre_hook(saving),  # type: ignore[no-untyped-call]
            *(weight.after_backward(partial(self._check_seen, weight)) for weight in self._weights),
        ]
        # DDP wraps the network between here and the first forward, and must not reduce gradients of the weights
        if not _in_processes() or any(is_sharded(weight.dense) for weight in self._weights):
            self.watch_weights()

    def watch_weights(self) -> None:
        """Collect gradients from code that reads the weights without calling their layers, from now on.

        The weights require gradients from here on. DDP, which wraps the network before its first forward pass, must not
        see that: with several processes, the first forward pass calls this.
        """
        for weight in () if self._watching else self._weights:
            weight.watch()
        self._watching = True

    def before_step(self) -> None:
        """Prepare complete gradients, before they are unscaled or clipped.

        Raises:
            RuntimeError: If numbers changed both in the values and in a weight, or in the values where a compiled
                forward pass could not see it, or without a sign before the previous step; or if a weight was replaced
                by another parameter.
        """
        for weight in self._weights:
            if weight.replaced:
                raise RuntimeError(
                    f'{weight.name} is another parameter than when CompactTraining was built; call load_state_dict '
                    'without assign=True and write numbers with copy_, or close() and build CompactTraining and the '
                    'optimizer anew'
                )
            if weight.dense.grad is not None:  # FSDP sets the gradients of sharded weights after all hooks
                weight.collect(weight.dense)
        if self._compiled:
            for weight in with_changed_values(self._weights):
                raise RuntimeError(_unseen(weight))
        if self._may_have_changed():
            for weight in with_changed_weights(self._weights):
                if with_changed_values([weight]):
                    raise RuntimeError(_changed_twice(weight))
                weight.read()
            self._suspicious = False
        else:
            self._comparisons.add(*weights_and_agreed(self._weights))
        self._comparisons.check()
        if not self._registered:
            average_gradients([weight.values for weight in self._weights])

    def after_step(self) -> None:
        assert self._required or not self._weights, 'start() comes before the first step'
        for weight in self._weights:
            weight.write()

    def report(self) -> str:
        if not self._routes:
            return ''
        lines = [f'{name:<44} {route}' for name, route in self._routes.items()]
        return '\n'.join(['compact training, route of each layer:', *lines])

    def close(self) -> None:
        """Restore the modules as :meth:`start` found them, with the numbers trained since."""
        for handle in self._handles:
            handle.remove()
        for weight, required in zip(self._weights, self._required, strict=False):
            weight.unwatch()
            weight.dense.requires_grad_(required)
        self._handles, self._routes, self._required = [], {}, []
        if self._registered:
            unregister(self._backbone)
        self._watching = self._compiled = self._registered = False
        self._comparisons = LateComparisons()

    def __enter__(self) -> CompactTraining:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _before_forward(self) -> None:
        self.watch_weights()
        if torch.compiler.is_compiling():
            self._compiled = True
        elif not torch.jit.is_tracing():  # type: ignore[no-untyped-call]
            with torch._C.DisableTorchFunction():  # hidden from modes that watch the network
                self._follow_values()

    def _may_have_changed(self) -> bool:
        """True if numbers must be compared: always on the CPU; elsewhere after a sign of a change, since it waits.

        Signs are a write that torch counts, other memory, and a switch between training and evaluation mode: averages
        are swapped in and out through ``.data``, which torch does not count, but around a validation.
        """
        return self._on_cpu or self._suspicious or any(weight.touched for weight in self._weights)

    @property
    def _on_cpu(self) -> bool:
        return all(weight.values.device.type == 'cpu' for weight in self._weights)

    def _follow_values(self) -> None:
        """Copy values that changed outside of a step (closure, perturbation, average) into the weights."""
        if self._mode is not self._backbone.training:
            self._mode, self._suspicious = self._backbone.training, True
        if not self._may_have_changed():
            self._comparisons.add(*values_and_agreed(self._weights))
            return
        for weight in with_changed_values(self._weights):
            if with_changed_weights([weight]):
                raise RuntimeError(_changed_twice(weight))
            weight.write()

    def _before_saving(self) -> None:
        self._suspicious = True
        self._follow_values()
        self._comparisons.check(everything=True)

    def _check_seen(self, weight: TrainedWeight) -> None:
        if self._compiled and weight.values_touched:
            raise RuntimeError(_unseen(weight))


def _in_processes() -> bool:
    return dist.is_available() and dist.is_initialized()


def _changed_twice(weight: TrainedWeight) -> str:
    return (
        f'the chosen numbers of {weight.name} were changed both in the weight and in the parameter that the optimizer '
        'holds for them since the last step; change only one of the two, preferably the weight'
    )


def _unseen(weight: TrainedWeight) -> str:
    return (
        f'the optimizer changed the chosen numbers of {weight.name} between two steps, which a compiled forward pass '
        'does not see; remove torch.compile or use mmgps.MaskedTraining'
    )


def _check_place(weight: TrainedWeight) -> None:
    now, built = (weight.dense.device, weight.dense.dtype), (weight.values.device, weight.values.dtype)
    if now != built:
        raise RuntimeError(
            f'{weight.name} is on {now[0]} as {now[1]}, but its values were built on {built[0]} as {built[1]}; '
            'move and convert the backbone before building CompactTraining'
        )


@torch.no_grad()
def average_gradients(values: Sequence[nn.Parameter]) -> None:
    """Average the gradients over all processes, as one buffer per type and device, in the order of ``values``.

    A gradient that is absent on some processes counts as zero there; one that is absent everywhere stays absent.
    """
    if not _in_processes() or dist.get_world_size() == 1:
        return
    groups: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for value in values:
        groups.setdefault((value.dtype, value.device), []).append(value)
    for members in groups.values():
        _average(members)


def _average(values: Sequence[nn.Parameter]) -> None:
    present = values[0].new_tensor([float(value.grad is not None) for value in values])
    parts = [value.grad if value.grad is not None else torch.zeros_like(value) for value in values]
    buffer = torch.cat([part.reshape(-1) for part in parts] + [present])
    dist.all_reduce(buffer)
    buffer /= dist.get_world_size()
    sizes = [value.numel() for value in values]
    *averages, present = torch.split(buffer, [*sizes, len(values)])
    missing = [at for at, value in enumerate(values) if value.grad is None]
    anywhere = present.tolist() if missing else []
    for at, (value, average) in enumerate(zip(values, averages, strict=True)):
        if value.grad is not None:
            value.grad.copy_(average.view_as(value))
        elif anywhere[at]:
            value.grad = average.view_as(value).clone()
