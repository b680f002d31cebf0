"""Selections in files and checkpoints: safetensors, a format version, a digest, and no executable code."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from .sealed import SealError, read_sealed, seal, unseal, write_sealed
from .selection import Connections, Selection

FORMAT_VERSION = 1
METADATA_KEY = 'mmgps.selection'


class SelectionFileError(ValueError):
    """A selection file or the selection within a checkpoint cannot be trusted."""


def save_selection(selection: Selection, path: str | os.PathLike[str]) -> None:
    """Write ``selection`` to ``path`` at once: the file appears whole or not at all."""
    state = pack_selection(selection)
    write_sealed(path, METADATA_KEY, state['metadata'], state['positions'])


def load_selection(path: str | os.PathLike[str]) -> Selection:
    """Read what :func:`save_selection` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        SelectionFileError: If the file is truncated, altered, of another kind, or of a newer format.
    """
    try:
        metadata, positions = read_sealed(path, METADATA_KEY, 'selection')
        return unpack_selection({'metadata': metadata, 'positions': positions})
    except (SealError, SelectionFileError) as error:
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
        'loss': selection.loss and dict(selection.loss),
        'shapes': {name: [item.neurons, item.fan_in] for name, item in selection.connections.items()},
    }
    return {'metadata': seal(content, positions), 'positions': positions}


def unpack_selection(state: dict[str, Any]) -> Selection:
    """The inverse of :func:`pack_selection`.

    Raises:
        SelectionFileError: Says what is wrong with ``state``.
    """
    positions = state.get('positions', {})
    try:
        content = unseal(state.get('metadata'), positions, 'selection', FORMAT_VERSION)
    except SealError as error:
        raise SelectionFileError(str(error)) from error
    connections = {n: Connections(positions[n].long(), *shape) for n, shape in content['shapes'].items()}
    whole, loss = tuple(content['whole']), content.get('loss')
    return Selection(content['method'], connections, whole, content['architecture'], content['settings'], loss)


def _narrow(positions: Tensor) -> Tensor:
    """32 bits where they are enough."""
    fits = not len(positions) or int(positions[-1]) < 2**31
    return positions.detach().cpu().to(torch.int32 if fits else torch.int64).contiguous()
