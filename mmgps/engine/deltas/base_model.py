"""Build the network of a config with the weights of its base, or with those of a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS as ANY_MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from torch import nn

from mmgps.selection import unpack_selection
from mmgps.tuning import LoadingWatch
from mmgps.utils.text import listed

from ..configs.config import without_method
from ..safe_loading import load_plain, weights_only
from ..tuned_backbone import find_backbone
from .checkpoint_method import CHECKPOINT_KEY, follow_checkpoint, injected_in

WEIGHT_KEYS = ('checkpoint', 'checkpoint_path', 'pretrained')


@weights_only()
def build_base(cfg: Config, base: str | os.PathLike[str] | None = None, target: str = 'backbone') -> nn.Module:
    """Build the model of ``cfg`` as it is before training, without a method in place.

    Args:
        cfg: Any config of an mm library; left as it is.
        base: Checkpoint of the backbone, or of a network that contains it. By default the config decides, by its
            ``init_cfg`` and its ``load_from``.
        target: Path of the backbone within the model.

    Raises:
        OSError: If there is no such file.
        CheckpointFileError: If the file is damaged or holds anything but weights.
        ValueError: If the file holds a network that a method added modules to, or if the model has no such backbone.
        RandomBaseError: If hardly any tensor in the file fits the backbone.
    """
    model: Any = build_plain(cfg)
    backbone = find_backbone(model, target)
    watch = LoadingWatch(backbone)
    if base is None:
        model.init_weights()
        if cfg.get('load_from'):
            load_checkpoint(model, cfg.load_from, map_location='cpu')
    else:
        _load_base(backbone, base, target)
    watch.close()
    files = [*named_weights(cfg.model), *filter(None, [cfg.get('load_from')])] if base is None else [str(base)]
    watch.check(' and '.join(files) or 'what was loaded', 'or name the base of the run')
    return model


def _load_base(backbone: Any, base: str | os.PathLike[str], target: str) -> None:
    state = state_of(load_plain(base))
    beside = injected_in(state, target) - set(backbone.state_dict())
    if beside:
        raise ValueError(
            f'{base} is no base: it is a network with {len(beside)} tensors that a method added to its base, '
            f'{listed(sorted(beside))}; name the pre-trained file as the base, and extract the delta of this one by '
            f'python tools/delta.py extract CONFIG {base} delta.safetensors'
        )
    inner = {name.removeprefix(f'{target}.'): v for name, v in state.items() if name.startswith(f'{target}.')}
    if inner:
        backbone.load_state_dict(inner)
        return
    backbone.init_cfg = dict(type='Pretrained', checkpoint=str(Path(base)))  # many backbones resize these weights
    if hasattr(backbone, 'is_init'):
        backbone.is_init = False
    backbone.init_weights()


def build_trained(cfg: Config, checkpoint: Mapping[str, Any], target: str = 'backbone') -> nn.Module:
    """Build the network of a checkpoint, whichever method trained it.

    Args:
        cfg: Config of the run, under this method or another; left as it is.
        checkpoint: Content of the checkpoint, with a selection and the full weights.
        target: Path of the backbone within the model.

    Raises:
        ValueError: If the weights are not those of the network.
    """
    model = build_plain(cfg)
    state = state_of(checkpoint)
    follow_checkpoint(model, target, state, unpack_selection(checkpoint[CHECKPOINT_KEY]))
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ValueError(f'the checkpoint is of another network than the config: {error}') from error
    return model


def build_plain(cfg: Config) -> nn.Module:
    """Build the model of ``cfg`` without a method in place and without loading weights; ``cfg`` is left as it is."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model: nn.Module = ANY_MODELS.build(without_method(cfg.model))
    return model


def named_weights(part: Any) -> list[str]:
    """List the weights that the config of a model names, in an ``init_cfg`` or as ``pretrained``."""
    if isinstance(part, list | tuple):
        return [name for each in part for name in named_weights(each)]
    if not isinstance(part, Mapping):
        return []
    own = [str(part[key]) for key in WEIGHT_KEYS if isinstance(part.get(key), str | bool) and part[key]]
    return [*own, *(name for value in part.values() for name in named_weights(value))]


def check_loaded(runner: Runner, watch: LoadingWatch, allowed: bool) -> None:
    """Check that the files that a config names filled the backbone.

    Args:
        runner: Runner of the model to tune.
        watch: Record of the tensors loaded into the backbone so far; it is closed.
        allowed: Accept any backbone: the config asks for a random one, or the run continues from a checkpoint.

    Raises:
        RandomBaseError: If hardly any tensor in such a file fits.
    """
    watch.close()
    if allowed:
        return
    named = [f'load_from {runner._load_from}'] if runner._load_from else []
    named += named_weights(runner.cfg.get('model'))
    remedy = 'set allow_random_base=True of the hook to tune a random backbone'
    watch.check(' and '.join(named) or 'what was loaded', remedy)
    if not watch.loads and not named:
        runner.logger.warning(
            'the config names no file of weights for the backbone: unless the backbone loads weights itself, it '
            'starts from random numbers; set init_cfg of the backbone, or load_from'
        )


def state_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Weights in a checkpoint, or in a file that holds nothing else."""
    found: Mapping[str, Any] = checkpoint.get('state_dict', checkpoint)
    return found
