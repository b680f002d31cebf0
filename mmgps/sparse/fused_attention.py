"""Self-attention that makes no attention weights.

``F.scaled_dot_product_attention`` keeps queries, keys, values and its output; torch's code of ``nn.MultiheadAttention``
that returns weights keeps ``[heads, tokens, tokens]`` of them for each image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .derived import Derivation, mark_derived

KEEPS_OUTPUT = (
    'ScaledDotProductFlashAttention',
    'ScaledDotProductEfficientAttention',
    'ScaledDotProductCudnnAttention',
)
"""Starts of the names of torch's operations that keep their output for backward."""


def is_self_attention(owner: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether ``owner`` attends from a batch to itself, by one packed projection and nothing beside it."""
    packed = owner.in_proj_weight is not None and owner.bias_k is None and not owner.add_zero_attn
    return packed and query.dim() == 3 and _same(query, key) and _same(query, value)


def self_attention(owner: nn.MultiheadAttention, linear: Callable[..., Tensor], x: Tensor) -> Tensor:
    """The output of ``owner`` for ``x`` as queries, keys and values, in its layout.

    The projections read the tokens of an image one after the other, which is how callers hold them in memory whatever
    ``batch_first`` says. Under dropout it draws other numbers than torch's code with weights.

    Args:
        owner: The module.
        linear: Computes its linear maps, the packed one first.
        x: ``[batch, tokens, width]``, or ``[tokens, batch, width]`` without ``batch_first``.
    """
    x = x if owner.batch_first else x.transpose(0, 1)
    images, tokens, width = x.shape
    heads = (images, tokens, owner.num_heads, owner.head_dim)
    packed = linear(x, owner.in_proj_weight, owner.in_proj_bias)
    q, k, v = (part.view(heads).transpose(1, 2) for part in packed.chunk(3, dim=-1))
    attended = F.scaled_dot_product_attention(q, k, v, dropout_p=owner.dropout if owner.training else 0.0)
    if not torch.compiler.is_compiling() and _maker(attended).startswith(KEEPS_OUTPUT):
        mark_derived(attended, Derivation((attended.detach(),), _itself))
    y = linear(attended.transpose(1, 2).reshape(images, tokens, width), owner.out_proj.weight, owner.out_proj.bias)
    return y if owner.batch_first else y.transpose(0, 1)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether ``b`` is ``a``, or the same view of the same tensor: mmcv transposes one tensor three times."""
    if a is b:
        return True
    if torch.compiler.is_compiling() or a._base is None or a._base is not b._base:
        return False
    return _layout(a) == _layout(b)


def _layout(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.stride(), x.storage_offset(), x.dtype, x.requires_grad, _maker(x)


def _maker(x: Tensor) -> str:
    """The operation of torch that made ``x``, '' where it has no gradient."""
    return '' if x.grad_fn is None else x.grad_fn.name()


def _itself(x: Tensor) -> Tensor:
    return x
