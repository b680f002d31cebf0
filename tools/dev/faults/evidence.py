"""What a killed run has left, and what a run has ended with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmgps.engine.safe_loading import load_plain
from mmgps.selection import load_selection


def inspect(work_dir: Path) -> int | None:
    """Make sure that all files of a run under their own names are whole.

    Returns:
        The iteration to go on from; None if it is the first.
    """
    if (work_dir / 'selection.safetensors').exists():
        load_selection(work_dir / 'selection.safetensors')
    iterations = {path: load_plain(path)['meta']['iter'] for path in work_dir.glob('[!.]*.pth')}
    note = work_dir / 'last_checkpoint'
    if not note.exists():
        return None
    named = Path(note.read_text())
    assert named in iterations, f'{note} names {named}; there are {sorted(iterations)}'
    return iterations[named]


def ending(work_dir: Path) -> dict[str, Any]:
    """Model, optimizer, schedulers and selection that the run has ended with."""
    checkpoint = load_plain((work_dir / 'last_checkpoint').read_text())
    held = {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers', 'mmgps_selection')}
    return {**held, 'iter': checkpoint['meta']['iter'], 'seed': checkpoint['meta']['seed']}


def differing(found: Any, expected: Any, name: str = '') -> list[str]:
    """Paths at which two endings differ in a bit."""
    if isinstance(expected, torch.Tensor):
        same = isinstance(found, torch.Tensor) and found.dtype == expected.dtype and torch.equal(found, expected)
        return [] if same else [name]
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return [name]
        return [bad for key in expected for bad in differing(found[key], expected[key], f'{name}/{key}')]
    if isinstance(expected, list | tuple):
        if len(found) != len(expected):
            return [name]
        return [bad for at, part in enumerate(expected) for bad in differing(found[at], part, f'{name}/{at}')]
    return [] if found == expected else [name]
