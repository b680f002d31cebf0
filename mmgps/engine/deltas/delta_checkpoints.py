"""Extract deltas from checkpoints, and write checkpoints from deltas."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmgps.delta import (
    AppliedDelta,
    BaseFingerprint,
    Delta,
    check_injection,
    extract,
    inject_missing,
    merge,
    same,
    unpack_delta,
    verify,
)
from mmgps.selection import Selection, pack_selection, unpack_selection

from ..safe_loading import load_plain, write_plain
from ..tuned_backbone import find_backbone
from .base_model import build_base, state_of
from .checkpoint_method import CHECKPOINT_KEY
from .delta_hook import DELTA_KEY, origin_of

PathLike = str | os.PathLike[str]


def extract_from_checkpoint(
    cfg: Config, checkpoint: PathLike, base: PathLike | None = None, target: str = 'backbone'
) -> Delta:
    """Extract the delta of the run that wrote ``checkpoint``.

    Args:
        cfg: Config of the run.
        checkpoint: Written by a run under ``mmgps.GPSHook`` or ``mmgps.TuneHook``.
        base: Base of the run, see :func:`mmgps.engine.build_base`.
        target: Path of the backbone within the model.

    Raises:
        ValueError: If the checkpoint holds no selection, or the file cannot be read safely.
        DeltaExtractError: If the base differs from the base of the run.
    """
    loaded = load_plain(checkpoint)
    if DELTA_KEY in loaded:
        return unpack_delta(loaded[DELTA_KEY])
    if CHECKPOINT_KEY not in loaded:
        raise ValueError(
            f'{checkpoint} holds no selection ({CHECKPOINT_KEY!r}): it was not trained with mmgps.GPSHook or '
            'mmgps.TuneHook, so there is no record of what it changed'
        )
    selection = unpack_selection(loaded[CHECKPOINT_KEY])
    model = build_base(cfg, base, target)
    backbone = find_backbone(model, target)
    beside, state = set(selection.whole) - dict(backbone.named_parameters()).keys(), state_of(loaded)
    check_injection(backbone, selection, {name: state.get(f'{target}.{name}') for name in beside})
    inject_missing(backbone, selection, beside)
    before = BaseFingerprint.of(backbone, selection)
    model.load_state_dict(dict(state))
    meta = loaded.get('meta', {})
    origin = origin_of(cfg, meta.get('dataset_meta'), meta.get('epoch'), meta.get('iter'))
    return extract(model, selection, before, target, origin)


def trained_state(cfg: Config, delta: Delta, base: PathLike | None = None) -> dict[str, Tensor]:
    """All tensors of the trained network, under their names in training.

    Raises:
        DeltaMismatchError: If the delta belongs to another base or architecture.
    """
    model = build_base(cfg, base, delta.target)
    AppliedDelta(model, delta)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def merged_state(cfg: Config, delta: Delta, base: PathLike | None = None) -> dict[str, Tensor]:
    """The trained network in the names of the base architecture, see :func:`mmgps.delta.merge`."""
    return merge(build_base(cfg, base, delta.target), delta)


def write_checkpoint(
    path: PathLike, state: Mapping[str, Tensor], delta: Delta, selection: Selection | None = None
) -> None:
    """Write a checkpoint as mmengine does, which mmseg loads; the file appears complete or not at all.

    Args:
        path: The file.
        state: The weights.
        delta: Delta that the weights come from.
        selection: Selection to record, if the network has injected modules.
    """
    origin = delta.origin
    meta: dict[str, Any] = {'epoch': origin.epoch, 'iter': origin.iteration}
    if origin.dataset_meta:  # mmseg believes them, however empty
        meta['dataset_meta'] = dict(origin.dataset_meta)
    checkpoint: dict[str, Any] = {'meta': meta, 'state_dict': dict(state)}
    if selection is not None:
        checkpoint[CHECKPOINT_KEY] = pack_selection(selection)
    write_plain(path, checkpoint)


def verify_delta(
    cfg: Config, delta: Delta, base: PathLike | None = None, checkpoint: PathLike | None = None
) -> list[str]:
    """Check a delta against its base, and against a checkpoint of the same run.

    Args:
        cfg: Config of the run.
        delta: Delta that was read from a file, so it is intact.
        base: Base of the run, see :func:`mmgps.engine.build_base`.
        checkpoint: Checkpoint of the same run; base and delta must give its weights bit for bit.

    Returns:
        One sentence for each check that passed.

    Raises:
        DeltaMismatchError: If the delta belongs to another base or architecture; says what differs.
        ValueError: If base and delta give other weights than the checkpoint has.
    """
    verify(build_base(cfg, base, delta.target), delta)
    found = ['the file is intact', f'the base is that of the delta: {len(delta.base.digests)} tensors, bit for bit']
    if checkpoint is not None:
        expected = dict(state_of(load_plain(checkpoint)))
        wrong = differing(trained_state(cfg, delta, base), expected)
        if wrong:
            raise ValueError(f'base and delta differ from {checkpoint} in {len(wrong)} tensors, first {wrong[0]!r}')
        found.append(f'base and delta are {checkpoint}: {len(expected)} tensors, bit for bit')
    return found


def differing(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that only one side has, or whose type, shape or bits differ."""
    names = dict.fromkeys((*some, *others))
    return [name for name in names if name not in some or name not in others or not same(some[name], others[name])]
