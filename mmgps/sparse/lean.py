"""Options that reduce the time or memory of a training step, for any method; results differ by rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmgps.architectures import DROP_WEIGHTS
from mmgps.rewiring import type_name

from .attention import PlainAttention, ProjectingForward, runs_natively
from .install import Handle


class LeanOption(Protocol):
    """Changes how a network computes its results, which stay the same up to rounding.

    Names, state dict, copies and pickles of the network stay those of the base.
    """

    def start(self, backbone: nn.Module) -> None:
        """Install the option, after the method and the training of its connections.

        Raises:
            ValueError: If ``backbone`` has nothing to change.
        """
        ...

    def report(self) -> str:
        """The line about this option in the table at the start of training."""
        ...

    def close(self) -> None:
        """Restore the network to its state before :meth:`start`."""
        ...


def start_options(options: Sequence[LeanOption], backbone: nn.Module) -> None:
    """Start ``options`` in order; if one raises a ``ValueError``, restore ``backbone``."""
    try:
        for option in options:
            option.start(backbone)
    except ValueError:
        for option in reversed(options):
            option.close()
        raise


class FusedAttention:
    """Computes attention by ``F.scaled_dot_product_attention`` where the caller drops the attention weights.

    It works inside ``nn.MultiheadAttention``, whatever is trained or injected there. Plain self-attention takes a short
    path; all other calls go through torch's own code with ``need_weights=False``.

    Args:
        callers: Qualified names of more classes that call a child ``nn.MultiheadAttention`` and drop the second result.
    """

    def __init__(self, callers: Sequence[str] = ()) -> None:
        self.callers = tuple(callers)
        self._handles: list[Handle] = []

    def start(self, backbone: nn.Module) -> None:
        self.close()
        for owner in self._found(backbone):
            own = vars(owner).get('forward')
            if isinstance(own, ProjectingForward):
                self._handles.append(_Fused(own))
            elif runs_natively(owner):
                plain = PlainAttention(owner)
                plain.fused = True
                self._handles.append(plain)
        if not self._handles:
            raise ValueError(self._nothing(backbone))

    def report(self) -> str:
        return f'fused attention: {len(self._handles)} of nn.MultiheadAttention compute no attention weights'

    def close(self) -> None:
        remove_all(self._handles)

    def _found(self, backbone: nn.Module) -> Iterator[nn.MultiheadAttention]:
        known = DROP_WEIGHTS | set(self.callers)
        for caller in backbone.modules():
            kind = _definer(caller)
            if f'{kind.__module__}.{kind.__qualname__}' in known and 'forward' not in vars(caller):
                yield from (child for child in caller.children() if isinstance(child, nn.MultiheadAttention))

    def _nothing(self, backbone: nn.Module) -> str:
        around = {
            type_name(caller)
            for caller in backbone.modules()
            if any(isinstance(child, nn.MultiheadAttention) for child in caller.children())
        }
        if not around:
            return f'{type(backbone).__name__} has no nn.MultiheadAttention; remove mmgps.FusedAttention'
        return (
            f'no caller of nn.MultiheadAttention in {type(backbone).__name__} is known to drop the weights (found '
            f'{", ".join(sorted(around))}); remove mmgps.FusedAttention, or name a class that drops the second result '
            'in its callers='
        )


class _Fused:
    """Makes the forward that a method installed compute no attention weights, until :meth:`remove`."""

    def __init__(self, forward: ProjectingForward) -> None:
        self._forward = forward
        forward.fused = True

    def remove(self) -> None:
        self._forward.fused = False


def _definer(module: nn.Module) -> type:
    """The class that defines the forward that ``module`` runs."""
    return next(kind for kind in type(module).__mro__ if 'forward' in vars(kind))


def remove_all(handles: list[Handle]) -> None:
    """Remove all ``handles``, last first, and clear the list."""
    while handles:
        handles.pop().remove()


def saved_bytes(forward: Callable[[], Any], exclude: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd saves in a forward pass for backward.

    Each storage counts once and in full, however many saved tensors it holds.

    Args:
        forward: Runs the forward pass and returns an object that holds its graph.
        exclude: Tensors whose storage does not count, such as parameters, inputs and others that exist anyway.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            # a reference keeps later tensors from getting the same address
            kept[storage.data_ptr()] = (storage.nbytes(), tensor.detach())
        # an operation that saved its own output would form a reference cycle with its graph if this were not detached
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(size for size, _ in kept.values())
