"""Short names for an architecture and for the exact numbers of a network."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def architecture_fingerprint(module: nn.Module) -> str:
    """SHA-256 of the names and shapes of all parameters."""
    digest = hashlib.sha256()
    for name, value in module.named_parameters():
        digest.update(f'{name}:{tuple(value.shape)}\n'.encode())
    return digest.hexdigest()


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 of the names, types and bits of all parameters."""
    digest = hashlib.sha256()
    for name, value in module.named_parameters():
        digest.update(f'{name}:{value.dtype}:{tuple(value.shape)}\n'.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
