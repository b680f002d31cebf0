"""The gradients of the values, averaged over processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn


@torch.no_grad()
def average_gradients(values: Sequence[nn.Parameter]) -> None:
    """Average the gradients over all processes, as one buffer per type and device, in the order of ``values``.

    A gradient that some processes do not have counts as zero there; one that none has stays absent.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
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
