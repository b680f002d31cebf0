"""Modules without memory for their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch


@contextmanager
def without_memory() -> Iterator[None]:
    """Build on the meta device; rates of stochastic depth, which builders read off a tensor, keep their values."""
    original = torch.linspace
    on_cpu = mock.patch.object(torch, 'linspace', lambda *a, **options: original(*a, **{**options, 'device': 'cpu'}))
    with on_cpu, torch.device('meta'):
        yield
