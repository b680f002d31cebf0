"""The weights of a plain ViT under the names of mmpretrain."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

RENAMED = {
    '.attn.attn.in_proj_weight': '.attn.qkv.weight',
    '.attn.attn.in_proj_bias': '.attn.qkv.bias',
    '.attn.attn.out_proj.': '.attn.proj.',
}
"""What mmseg's ``VisionTransformer``, which has ``nn.MultiheadAttention`` within, calls the layers of its attention,
and what mmpretrain's calls them. Both stack query, key and value in this order; all other names are equal."""


def mmpretrain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of mmseg's ``VisionTransformer`` to those of mmpretrain's; no number changes.

    Args:
        state: Names of mmseg to tensors, with or without a prefix such as ``backbone.``.

    Raises:
        ValueError: If no name is one of mmseg's attention.
    """
    renamed = {_renamed(name): value for name, value in state.items()}
    if renamed.keys() == state.keys():
        first = ', '.join(list(state)[:3]) or 'nothing'
        raise ValueError(
            f"no name is one of the attention of mmseg's VisionTransformer ({', '.join(RENAMED)}); found {first}: "
            'weights of mmpretrain need no renaming'
        )
    return renamed


def _renamed(name: str) -> str:
    for theirs, ours in RENAMED.items():
        name = name.replace(theirs, ours)
    return name
