"""Run something through a model and leave no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restore on exit what a forward and backward pass changes.

    These are buffers (BN statistics), training flags, ``requires_grad``, gradients, and the random state of Python,
    NumPy and torch, on the CPU and on the CUDA devices that hold the model. Weights are not copied: a pass without an
    optimizer does not change them.
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
