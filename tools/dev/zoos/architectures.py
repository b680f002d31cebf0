"""The distinct architectures of the model zoos within the installed mm packages."""

from __future__ import annotations

import importlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

STACKS = ('mmseg', 'mmpretrain', 'mmdet')
PARTS = ('backbone', 'neck', 'head', 'auxiliary_head')
#: What a model calls these parts beside their usual name.
ALIASES = {
    'backbone': ('image_encoder',),
    'head': ('decode_head', 'bbox_head', 'roi_head', 'panoptic_head', 'mask_head', 'rpn_head'),
}


@dataclass(frozen=True)
class Architecture:
    """Configs whose models consist of parts of the same types.

    Args:
        stack: Package whose zoo they are in.
        types: Types of the model and of its ``PARTS``, as text; empty where there is none.
        configs: Paths within the zoo, one of each distinct model; only those that train, if any does.
        trains: Whether they say how to train, and do it by mmengine's own runner.
        parameters: Of the smallest of them, None where that is not known.
    """

    stack: str
    types: tuple[str, ...]
    configs: tuple[str, ...]
    trains: bool
    parameters: int | None = None


def zoo(stack: str) -> Path:
    """Where the installed package ``stack`` keeps its configs."""
    return Path(str(importlib.import_module(stack).__file__)).parent / '.mim/configs'


def architectures(stack: str) -> tuple[list[Architecture], dict[str, str]]:
    """The architectures of a zoo, and why the configs in no architecture are in none: path to reason."""
    found: dict[tuple[str, ...], dict[bool, dict[str, str]]] = defaultdict(lambda: {True: {}, False: {}})
    unread = {}
    for path in _paths(stack):
        try:
            cfg = Config.fromfile(zoo(stack) / path)
        except Exception as error:
            unread[path] = f'{type(error).__name__}: {error}'.replace(f'{zoo(stack)}/', '')
            continue
        model = cfg.get('model')
        if model:  # others are parts of configs
            found[_types(model)][_trains(cfg)].setdefault(json.dumps(model, sort_keys=True, default=str), path)
    return [_architecture(stack, types, models) for types, models in found.items()], unread


def _paths(stack: str) -> list[str]:
    paths = (path.relative_to(zoo(stack)) for path in sorted(zoo(stack).glob('*/*.py')))
    return [path.as_posix() for path in paths if path.parent.name != '_base_']


def _trains(cfg: Config) -> bool:
    named = all(cfg.get(key) for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'))
    return named and 'runner_type' not in cfg


def _architecture(stack: str, types: tuple[str, ...], models: dict[bool, dict[str, str]]) -> Architecture:
    trains = bool(models[True])
    return Architecture(stack, types, tuple(models[trains].values()), trains)


def _types(model: dict[str, Any]) -> tuple[str, ...]:
    parts = (next((model[key] for key in (name, *ALIASES.get(name, ())) if model.get(key)), None) for name in PARTS)
    return str(model.get('type')), *map(_type, parts)


def _type(part: Any) -> str:
    if isinstance(part, list | tuple):
        return ' + '.join(map(_type, part))
    return str(part['type']) if isinstance(part, dict) and 'type' in part else ''
