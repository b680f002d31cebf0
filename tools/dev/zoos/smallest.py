"""The configs of each architecture in the order of their size, which torch's meta device tells without memory."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from .architectures import Architecture, architectures, zoo
from .shrink import without_pretrained


def listed(stack: str, path: Path, only: Sequence[str] = ('',)) -> tuple[list[Architecture], dict[str, str]]:
    """What :func:`architectures` finds, the smallest first, also among the configs of each; kept in ``path``.

    Args:
        only: Texts of which ``STACK/CONFIG`` of an architecture has one, ``CONFIG`` being the path of its smallest.
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
    """The same, the config with the fewest parameters first; those that cannot be counted, last."""
    sizes = {path: _size(architecture.stack, path) for path in architecture.configs}
    least = min(sizes.values())
    counted = None if least == math.inf else int(least)
    return replace(architecture, configs=tuple(sorted(sizes, key=lambda path: sizes[path])), parameters=counted)


def _size(stack: str, path: str) -> float:
    try:
        return count_parameters(stack, Config.fromfile(zoo(stack) / path).model)
    except Exception:  # also the reason why it does not train, which the sweep finds and reports
        return math.inf


def count_parameters(stack: str, model: Any) -> int:
    """Parameters of the model of a config; none of them gets memory."""
    init_default_scope(stack)
    linspace = torch.linspace
    torch.linspace = lambda *args, **options: linspace(*args, **{**options, 'device': 'cpu'})  # rates, read as numbers
    try:
        with torch.device('meta'):
            built = MODELS.build(without_pretrained(copy.deepcopy(model)))
    finally:
        torch.linspace = linspace
    return sum(value.numel() for value in built.parameters())
