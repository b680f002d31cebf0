"""What autograd keeps for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


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
