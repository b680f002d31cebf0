"""The network of a config with the numbers of its base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS as ANY_MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from .checkpoints import load_plain, weights_only
from .config import without_method
from .target import find_backbone


@weights_only()
def build_base(cfg: Config, base: str | os.PathLike[str] | None = None, target: str = 'backbone') -> nn.Module:
    """Build the model of ``cfg`` as a run finds it before training, without a method in place.

    Args:
        cfg: Any config of an mm library; left as it is.
        base: A checkpoint of the backbone, or of a network with it. By default what the config says: its own
            ``init_cfg``, and ``load_from`` if it has one.
        target: Path of the backbone within the model.

    Raises:
        OSError: If there is no such file.
        CheckpointFileError: If the file is damaged or holds other things than weights; nothing of it is executed.
        ValueError: If the model has no such backbone.
    """
    model: Any = build_plain(cfg)
    backbone = find_backbone(model, target)
    if base is None:
        model.init_weights()
        if cfg.get('load_from'):
            load_checkpoint(model, cfg.load_from, map_location='cpu')
        return model
    state = state_of(load_plain(base))
    inner = {name.removeprefix(f'{target}.'): v for name, v in state.items() if name.startswith(f'{target}.')}
    if inner:
        backbone.load_state_dict(inner)
    else:
        load_backbone(backbone, base)
    return model


def build_plain(cfg: Config) -> nn.Module:
    """Build the model of ``cfg`` without a method in place and without loading weights; ``cfg`` is left as it is."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model: nn.Module = ANY_MODELS.build(without_method(cfg.model))
    return model


def state_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of a checkpoint, or of a file that holds nothing else."""
    found: Mapping[str, Any] = checkpoint.get('state_dict', checkpoint)
    return found


def load_backbone(backbone: Any, base: str | os.PathLike[str]) -> None:
    """Load a file of backbone weights as ``init_cfg`` of a config does: many backbones resize what they load."""
    backbone.init_cfg = dict(type='Pretrained', checkpoint=str(Path(base)))
    if hasattr(backbone, 'is_init'):
        backbone.is_init = False
    backbone.init_weights()
