"""Fingerprints of an architecture and of the exact numbers of a network."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from mmgps.rewiring import base_parameters


def architecture_fingerprint(module: nn.Module) -> str:
    """SHA-256 of the names and shapes of all parameters of the base, without injected modules."""
    digest = hashlib.sha256()
    for name, value in base_parameters(module):
        digest.update(f'{name}:{tuple(value.shape)}\n'.encode())
    return digest.hexdigest()


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 of the names, types and bits of all parameters of the base."""
    digest = hashlib.sha256()
    for name, value in base_parameters(module):
        digest.update(f'{name}:{value.dtype}:{tuple(value.shape)}\n'.encode())
        digest.update(bits(value).numpy().data)
    return digest.hexdigest()


def bits(value: Tensor) -> Tensor:
    """The bytes of ``value`` in logical order, uint8 on the CPU; they compare NaN like any other number."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8)
