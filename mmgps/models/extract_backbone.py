"""Take the backbone's weights out of a checkpoint, to start other runs from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmgps.engine.safe_loading import load_plain, write_plain
from mmgps.utils.atomic_file import check_apart
from mmgps.utils.names import nearest


def strip_prefix(state: Mapping[str, Tensor], prefix: str = 'backbone.') -> dict[str, Tensor]:
    """Keep the entries whose names begin with ``prefix`` and take it off.

    Raises:
        ValueError: If no name begins with ``prefix``; names the first parts that there are.
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
        prefix: Where the backbone sits in the model.
        dtype: Store floating point numbers in this type, for a smaller file; ``None`` keeps them as they are.

    Raises:
        OSError: If ``out`` cannot be written; it is as it was then.
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
