"""Distinct architectures of the model zoos in the installed mm packages, and their configs by size."""

from __future__ import annotations

import copy
import importlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from .shrink import without_pretrained

STACKS = ('mmseg', 'mmpretrain', 'mmdet')
PARTS = ('backbone', 'neck', 'head', 'auxiliary_head')
#: Other names of these parts.
ALIASES = {
    'backbone': ('image_encoder',),
    'head': ('decode_head', 'bbox_head', 'roi_head', 'panoptic_head', 'mask_head', 'rpn_head'),
}


@dataclass(frozen=True)
class Architecture:
    """Configs whose models consist of parts of the same types.

    Args:
        stack: Package of the zoo.
        types: Types of the model and of its ``PARTS``, as text; empty for a missing part.
        configs: Paths within the zoo, one per distinct model; only configs that train, if there are any.
        trains: True if the configs define a training that mmengine's own runner executes.
        parameters: Number of parameters of the smallest model; None if unknown.
    """

    stack: str
    types: tuple[str, ...]
    configs: tuple[str, ...]
    trains: bool
    parameters: int | None = None


def zoo(stack: str) -> Path:
    """Return the folder of configs in the installed package ``stack``."""
    return Path(str(importlib.import_module(stack).__file__)).parent / '.mim/configs'


def architectures(stack: str) -> tuple[list[Architecture], dict[str, str]]:
    """Return the architectures of a zoo, and for each config outside of them the reason, by path."""
    found: dict[tuple[str, ...], dict[bool, dict[str, str]]] = defaultdict(lambda: {True: {}, False: {}})
    unread = {}
    for path in _paths(stack):
        try:
            cfg = Config.fromfile(zoo(stack) / path)
        except Exception as error:
            unread[path] = f'{type(error).__name__}: {error}'.replace(f'{zoo(stack)}/', '')
            continue
        model = cfg.get('model')
        if model:  # other files are parts of configs
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


def listed(stack: str, path: Path, only: Sequence[str] = ('',)) -> tuple[list[Architecture], dict[str, str]]:
    """Return the result of :func:`architectures`, sorted by size, and cache it in ``path``.

    Args:
        stack: Package of the zoo.
        path: File of the cache.
        only: Keep the architectures with one of these texts in ``STACK/SMALLEST_CONFIG``.
    """
    if not path.exists():
        found, unread = architectures(stack)
        ordered = sorted(map(by_size, found), key=lambda each: each.parameters or math.inf)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = dict(architectures=list(map(asdict, ordered)), unread=unread)
        path.write_text(json.dumps(kept, indent=1))
    kept = json.loads(path.read_text())
    for each in kept['architectures']:
        each.update(types=tuple(each['types']), configs=tuple(each['configs']))
    found = [Architecture(**each) for each in kept['architectures']]
    return [each for each in found if any(text in f'{stack}/{each.configs[0]}' for text in only)], kept['unread']


def by_size(architecture: Architecture) -> Architecture:
    """Sort the configs by their number of parameters; those that torch cannot count come last."""
    sizes = {path: _size(architecture.stack, path) for path in architecture.configs}
    least = min(sizes.values())
    counted = None if least == math.inf else int(least)
    return replace(architecture, configs=tuple(sorted(sizes, key=lambda path: sizes[path])), parameters=counted)


def _size(stack: str, path: str) -> float:
    try:
        return count_parameters(stack, Config.fromfile(zoo(stack) / path).model)
    except Exception:  # the sweep meets the same error and reports it
        return math.inf


def count_parameters(stack: str, model: Any) -> int:
    """Count the parameters of a model on torch's meta device, without memory for them."""
    init_default_scope(stack)
    linspace = torch.linspace

    def on_cpu(*args: Any, **options: Any) -> torch.Tensor:
        return linspace(*args, **{**options, 'device': 'cpu'})  # builders read rates off its result

    with mock.patch.object(torch, 'linspace', on_cpu), torch.device('meta'):
        built = MODELS.build(without_pretrained(copy.deepcopy(model)))
    return sum(value.numel() for value in built.parameters())
