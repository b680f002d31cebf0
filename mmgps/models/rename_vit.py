"""The weights of a plain ViT under the names of mmpretrain."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor

from mmgps.engine.safe_loading import load_plain, write_plain
from mmgps.utils.atomic_file import check_apart

RENAMED = {
    '.attn.attn.in_proj_weight': '.attn.qkv.weight',
    '.attn.attn.in_proj_bias': '.attn.qkv.bias',
    '.attn.attn.out_proj.': '.attn.proj.',
}
"""What mmseg's ``VisionTransformer``, which has ``nn.MultiheadAttention`` within, calls the layers of its attention,
and what mmpretrain's calls them. Both stack query, key and value in this order; all other names are equal."""


def convert_vit(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Write the weights in ``source`` to ``target`` under the names of mmpretrain, and return them.

    Raises:
        OSError: If ``target`` cannot be written; it is as it was then.
        CheckpointFileError: If ``source`` is damaged or holds other things than weights.
        ValueError: If ``target`` is ``source``, or no name is one of mmseg's attention.
    """
    check_apart(target, source)
    loaded = load_plain(source)
    state = mmpretrain_names(loaded.get('state_dict', loaded))
    write_plain(target, {'state_dict': state})
    return state


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
