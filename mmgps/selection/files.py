"""Selections in files and checkpoints: safetensors, a format version, a digest, and no executable code."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .selection import Connections, Selection

FORMAT_VERSION = 1
METADATA_KEY = 'mmgps.selection'


class SelectionFileError(ValueError):
    """A selection file or the selection within a checkpoint cannot be trusted."""


def save_selection(selection: Selection, path: str | os.PathLike[str]) -> None:
    """Write ``selection`` to ``path`` at once: the file appears whole or not at all."""
    state = pack_selection(selection)
    target = Path(path)
    partial = target.with_name(f'.{target.name}.{os.getpid()}.part')
    try:
        save_file(state['positions'], str(partial), {METADATA_KEY: state['metadata']})
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def load_selection(path: str | os.PathLike[str]) -> Selection:
    """Read what :func:`save_selection` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        SelectionFileError: If the file is truncated, altered, of another kind, or of a newer format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no selection file at {os.fspath(path)!r}')
    try:
        with safe_open(str(path), framework='pt') as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY, '')
            positions = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return unpack_selection({'metadata': metadata, 'positions': positions})
    except (SafetensorError, SelectionFileError) as error:
        raise SelectionFileError(f'{os.fspath(path)!r} is no intact selection file: {error}') from error


def pack_selection(selection: Selection) -> dict[str, Any]:
    """The selection as strings and tensors, for a checkpoint that loads with ``weights_only=True``."""
    positions = {name: _narrow(item.positions) for name, item in selection.connections.items()}
    content = {
        'format_version': FORMAT_VERSION,
        'method': selection.method,
        'whole': list(selection.whole),
        'architecture': selection.architecture,
        'settings': dict(selection.settings),
        'shapes': {name: [item.neurons, item.fan_in] for name, item in selection.connections.items()},
    }
    text = json.dumps(content, sort_keys=True)
    return {'metadata': json.dumps({'content': text, 'sha256': _digest(text, positions)}), 'positions': positions}


def unpack_selection(state: dict[str, Any]) -> Selection:
    """The inverse of :func:`pack_selection`.

    Raises:
        SelectionFileError: Says what is wrong with ``state``.
    """
    try:
        envelope = json.loads(state['metadata'])
        text, digest, positions = envelope['content'], envelope['sha256'], state['positions']
        intact = digest == _digest(text, positions)
        content = json.loads(text) if intact else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SelectionFileError('it holds no description of a selection') from error
    if content is None:
        raise SelectionFileError('its content does not match its digest; it was altered or damaged')
    if content['format_version'] != FORMAT_VERSION:
        raise SelectionFileError(
            f'its format version is {content["format_version"]}, this release of mmgps reads {FORMAT_VERSION}'
        )
    connections = {n: Connections(positions[n].long(), *shape) for n, shape in content['shapes'].items()}
    return Selection(
        content['method'], connections, tuple(content['whole']), content['architecture'], content['settings']
    )


def _narrow(positions: Tensor) -> Tensor:
    """32 bits where they are enough."""
    fits = not len(positions) or int(positions[-1]) < 2**31
    return positions.detach().cpu().to(torch.int32 if fits else torch.int64).contiguous()


def _digest(text: str, positions: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(positions):
        digest.update(f'{name}:{positions[name].dtype}'.encode())
        digest.update(positions[name].numpy().tobytes())
    return digest.hexdigest()
