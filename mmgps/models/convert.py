"""Convert weights: extract the backbone of a checkpoint, and rename a ViT of mmseg for mmpretrain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmgps.engine.safe_loading import load_plain, write_plain
from mmgps.utils.atomic_file import check_apart
from mmgps.utils.text import nearest

RENAMED = {
    '.attn.attn.in_proj_weight': '.attn.qkv.weight',
    '.attn.attn.in_proj_bias': '.attn.qkv.bias',
    '.attn.attn.out_proj.': '.attn.proj.',
}
"""Names of the attention layers in mmseg's ``VisionTransformer``, which uses ``nn.MultiheadAttention``, and in
mmpretrain's. Both stack query, key and value in this order; all other names are equal."""


def strip_prefix(state: Mapping[str, Tensor], prefix: str = 'backbone.') -> dict[str, Tensor]:
    """Keep the entries whose names begin with ``prefix``, and remove it.

    Raises:
        ValueError: If no name begins with ``prefix``; lists the first parts of the names.
    """
    kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not kept:
        parts = sorted({name.split('.')[0] + '.' for name in state})
        known = f'{", ".join(parts)}; nearest: {nearest(prefix, parts, 1)}' if parts else 'none'
        raise ValueError(f'no weight begins with {prefix!r}; the checkpoint has {known}')
    return kept


def extract_backbone(
    checkpoint: str | Path, out: str | Path, prefix: str = 'backbone.', dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Write the backbone of ``checkpoint`` to ``out`` as a plain dict of tensors, and return it.

    mmseg loads the file by ``init_cfg=dict(type='Pretrained', checkpoint=out)``.

    Args:
        checkpoint: A file written by mmengine, or a bare state dict.
        out: The file to write.
        prefix: Path of the backbone in the model, with a dot at its end.
        dtype: Type of floating-point numbers in the file, to make it smaller; ``None`` keeps their types.

    Raises:
        OSError: If ``out`` cannot be written; an existing file is unchanged.
        CheckpointFileError: If the checkpoint is damaged or holds more than tensors, plain values and logs.
        ValueError: If ``out`` is the checkpoint, or nothing in it begins with ``prefix``.
    """
    check_apart(out, checkpoint)
    loaded = load_plain(checkpoint)
    weights = strip_prefix(loaded.get('state_dict', loaded), prefix)
    # Cloned, because torch.save writes the whole storage that a view looks into.
    cast = {k: v.to(dtype) if dtype and v.is_floating_point() else v.clone() for k, v in weights.items()}
    write_plain(out, cast)
    return cast


def convert_vit(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Write the weights in ``source`` to ``target`` under the names of mmpretrain, and return them.

    Raises:
        OSError: If ``target`` cannot be written; an existing file is unchanged.
        CheckpointFileError: If ``source`` is damaged or holds more than weights.
        ValueError: If ``target`` is ``source``, or no name belongs to mmseg's attention.
    """
    check_apart(target, source)
    loaded = load_plain(source)
    state = mmpretrain_names(loaded.get('state_dict', loaded))
    write_plain(target, {'state_dict': state})
    return state


def mmpretrain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of mmseg's ``VisionTransformer`` to the names of mmpretrain's; no value changes.

    Args:
        state: Tensors by mmseg's names, with or without a prefix such as ``backbone.``.

    Raises:
        ValueError: If no name belongs to mmseg's attention.
    """
    renamed = {}
    for name, value in state.items():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        renamed[name] = value
    if renamed.keys() == state.keys():
        first = ', '.join(list(state)[:3]) or 'nothing'
        raise ValueError(
            f"no name belongs to the attention of mmseg's VisionTransformer ({', '.join(RENAMED)}); found {first}: "
            'weights of mmpretrain need no renaming'
        )
    return renamed
