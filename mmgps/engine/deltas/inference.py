"""Networks for inference: a base with one delta, or with several deltas to switch between."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from mmgps.delta import AppliedDelta, Delta, DeltaBank, load_delta, unpack_delta

from ..safe_loading import load_plain
from .base_model import build_base, build_trained
from .checkpoint_method import CHECKPOINT_KEY
from .delta_hook import DELTA_KEY

DeltaLike = Delta | str | os.PathLike[str]


def init_model(
    config: Config | str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    delta: DeltaLike | None = None,
    device: str = 'cpu',
    cfg_options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model in evaluation mode, ready for ``mmseg.apis.inference_model``.

    Args:
        config: Config of the run, or a file.
        base: Checkpoint of the base, see :func:`build_base`. Without a delta it may also be a checkpoint of a run
            under :class:`mmgps.engine.TuneHook`; then the model is the trained network with its head and its method.
        delta: Delta to apply, or its file; None builds the base.
        device: Device of the model.
        cfg_options: Changes to the config.

    Raises:
        DeltaMismatchError: If the delta belongs to another base or architecture.
        DeltaFileError: If the file is damaged.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    if cfg_options:
        cfg.merge_from_dict(dict(cfg_options))
    read = load_delta(delta) if isinstance(delta, str | os.PathLike) else delta
    if base is not None and read is None:
        checkpoint = load_plain(base)
        if DELTA_KEY in checkpoint:
            base, read = None, unpack_delta(checkpoint[DELTA_KEY])
        elif CHECKPOINT_KEY in checkpoint:
            trained: Any = build_trained(cfg, checkpoint)
            trained.cfg = cfg
            if meta := checkpoint.get('meta', {}).get('dataset_meta'):
                trained.dataset_meta = dict(meta)
            return trained.to(device).eval()
    model: Any = build_base(cfg, base, read.target if read else 'backbone')
    if read is not None:
        AppliedDelta(model, read)
        set_classes(model, read)
    model.cfg = cfg
    return model.to(device).eval()


class ModelBank(DeltaBank):
    """A delta bank that sets the classes of the applied delta on the model, which mmseg needs for drawing.

    Without a delta, or with one that records no classes, the model has no ``dataset_meta``.
    """

    def __init__(self, model: nn.Module, target: str = 'backbone') -> None:
        super().__init__(model, target)
        self.switched(None)

    def switched(self, delta: Delta | None) -> None:
        set_classes(self.model, delta)


def init_bank(
    config: Config | str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    deltas: Mapping[str, DeltaLike] | None = None,
    device: str = 'cpu',
    target: str = 'backbone',
) -> ModelBank:
    """Build a base with several deltas to switch between, none of them applied; ``bank.model`` is the model.

    Args:
        config: Config of a run, or a file. The runs of all deltas have the same base and the same shape of head.
        base: Checkpoint of the base, see :func:`build_base`.
        deltas: Deltas or their files, by name.
        device: Device of the model.
        target: Path of the backbone within the model.

    Raises:
        DeltaMismatchError: If a delta belongs to another base or architecture.
        DeltaFileError: If a file is damaged.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    model: Any = build_base(cfg, base, target)
    model.cfg = cfg
    bank = ModelBank(model.eval(), target)
    for name, delta in (deltas or {}).items():
        bank.add(name, delta)
    model.to(device)
    return bank


def set_classes(model: Any, delta: Delta | None) -> None:
    """Give ``model`` the meta data of the data set that ``delta`` was trained on, or none without a delta."""
    vars(model).pop('dataset_meta', None)
    if delta is not None and delta.origin.dataset_meta:
        model.dataset_meta = dict(delta.origin.dataset_meta)
