"""Options that take time or memory off a step of any method, and round otherwise than without."""

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
    """Changes how a network with its method in place computes, and not what, but for rounding.

    Names, state dict, copies and pickles of the network stay those of the base.
    """

    def start(self, backbone: nn.Module) -> None:
        """Begin; called after the method, and the training of its connections, are in place.

        Raises:
            ValueError: If ``backbone`` has nothing to change.
        """
        ...

    def report(self) -> str:
        """What the table at the start of training says of it."""
        ...

    def close(self) -> None:
        """Leave the network as :meth:`start` found it."""
        ...


def start_options(options: Sequence[LeanOption], backbone: nn.Module) -> None:
    """Start ``options`` in their order; if one is refused, leave ``backbone`` as it was."""
    try:
        for option in options:
            option.start(backbone)
    except ValueError:
        for option in reversed(options):
            option.close()
        raise


class FusedAttention:
    """Attention by ``F.scaled_dot_product_attention`` where the caller drops the attention weights.

    Works inside ``nn.MultiheadAttention``, whatever is trained or put in place there. Masks, dropout and all else go
    through torch's own code, asked for no weights; plain self-attention has a shorter way.

    Args:
        callers: Qualified names of classes, beside those that are known, which call a ``nn.MultiheadAttention`` that
            is a child of theirs and drop the second result.
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
        return f'fused attention: {len(self._handles)} of nn.MultiheadAttention make no attention weights'

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
        return (
            f'mmgps.FusedAttention found no nn.MultiheadAttention in {type(backbone).__name__} whose caller is known '
            f'to drop the weights; it is called by {", ".join(sorted(around)) or "nothing: there is none"}; leave the '
            'option out, or name a class that drops the second result in callers'
        )


class _Fused:
    """Lets the forward of a method make no weights, until :meth:`remove`."""

    def __init__(self, forward: ProjectingForward) -> None:
        self._forward = forward
        forward.fused = True

    def remove(self) -> None:
        self._forward.fused = False


def _definer(module: nn.Module) -> type:
    """The class that defines the forward that ``module`` runs."""
    return next(kind for kind in type(module).__mro__ if 'forward' in vars(kind))


def remove_all(handles: list[Handle]) -> None:
    """Remove ``handles``, the last one first, and forget them."""
    while handles:
        handles.pop().remove()


def saved_bytes(forward: Callable[[], Any], exclude: Iterable[Tensor] = ()) -> int:
    """Bytes that a forward pass keeps for its backward.

    Each storage counts once and whole, however many tensors that are kept lie in it; parameters, inputs and what else
    lives anyway are left out by ``exclude``.

    Args:
        forward: Runs the forward pass and returns whatever holds its graph.
        exclude: Tensors whose storage is not counted.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            # held, so that no later tensor gets its address
            kept[storage.data_ptr()] = (storage.nbytes(), tensor.detach())
        # detached: an operation that saved its own output would otherwise hold its graph, and the graph it, for good
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(size for size, _ in kept.values())
