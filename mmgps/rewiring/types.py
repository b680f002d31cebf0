"""Types of layers, and the qualified names of types."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, *([nn.RMSNorm] if hasattr(nn, 'RMSNorm') else []))
# Attributes of attention modules that contain the number of heads.
HEADS = ('num_heads', 'num_attention_heads', 'n_heads', 'n_head', 'heads')


def type_names(owner: nn.Module) -> set[str]:
    """Qualified names of the class of ``owner`` and of its bases."""
    return {f'{kind.__module__}.{kind.__qualname__}' for kind in type(owner).__mro__}


def type_name(module: nn.Module) -> str:
    """Qualified name of the class of ``module``."""
    return f'{type(module).__module__}.{type(module).__qualname__}'
