"""Deltas in files and checkpoints: one safetensors file, JSON metadata, a digest over all of it, no executable code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from mmgps.selection import Selection
from mmgps.selection.sealed import SealError, read_sealed, seal, unseal, write_sealed

from .base import Base
from .columns import ColumnsError, pack_columns, unpack_columns
from .delta import Delta, Origin

FORMAT_VERSION = 1
METADATA_KEY = 'mmgps.delta'
WHOLE = 'tensors/'
CHOSEN = 'connections/'


class DeltaFileError(ValueError):
    """A delta file, or the delta within a checkpoint, cannot be trusted."""


def save_delta(delta: Delta, path: str | os.PathLike[str]) -> None:
    """Write ``delta`` to ``path`` at once: the file appears whole or not at all."""
    state = pack_delta(delta)
    write_sealed(path, METADATA_KEY, state['metadata'], state['tensors'])


def load_delta(path: str | os.PathLike[str]) -> Delta:
    """Read what :func:`save_delta` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        DeltaFileError: If the file is truncated, altered, of another kind, or of another format version.
    """
    try:
        metadata, tensors = read_sealed(path, METADATA_KEY, 'delta')
        return unpack_delta({'metadata': metadata, 'tensors': tensors})
    except (SealError, DeltaFileError) as error:
        raise DeltaFileError(f'{os.fspath(path)!r} is no intact delta file: {error}') from error


def pack_delta(delta: Delta) -> dict[str, Any]:
    """The delta as strings and tensors, for a checkpoint that loads with ``weights_only=True``."""
    tensors = {WHOLE + name: value for name, value in delta.tensors.items()}
    for name, item in delta.selection.connections.items():
        parts = {**pack_columns(item), 'values': delta.values[name]}
        tensors |= {f'{CHOSEN}{name}/{part}': value for part, value in parts.items()}
    content = {
        'format_version': FORMAT_VERSION,
        'method': delta.selection.method,
        'settings': dict(delta.selection.settings),
        'loss': delta.selection.loss and dict(delta.selection.loss),
        'k': delta.k,
        'whole': list(delta.selection.whole),
        'architecture': delta.selection.architecture,
        'connections': {name: [item.neurons, item.fan_in] for name, item in delta.selection.connections.items()},
        'base': asdict(delta.base),
        'target': delta.target,
        'origin': asdict(delta.origin),
        'shapes': {name: list(value.shape) for name, value in tensors.items()},
    }
    return {'metadata': seal(content, tensors), 'tensors': tensors}


def unpack_delta(state: Mapping[str, Any]) -> Delta:
    """The inverse of :func:`pack_delta`.

    Raises:
        DeltaFileError: Says what is wrong with ``state``.
    """
    tensors = state.get('tensors', {})
    try:
        content = unseal(state.get('metadata'), tensors, 'delta', FORMAT_VERSION)
        return _assemble(content, tensors)
    except (SealError, ColumnsError) as error:
        raise DeltaFileError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DeltaFileError(f'its description is not that of a delta: {error!r}') from error


def _assemble(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Delta:
    # the digest has no shapes in it
    wrong = [name for name, value in tensors.items() if list(value.shape) != content['shapes'][name]]
    if wrong:
        raise DeltaFileError(f'{wrong[0]!r} has the shape {tuple(tensors[wrong[0]].shape)}; it was altered')
    connections, values = {}, {}
    for name, (neurons, fan_in) in content['connections'].items():
        columns, counts = tensors[f'{CHOSEN}{name}/columns'], tensors.get(f'{CHOSEN}{name}/counts')
        connections[name] = unpack_columns(columns, counts, neurons, fan_in)
        values[name] = tensors[f'{CHOSEN}{name}/values']
        if values[name].shape != connections[name].positions.shape:
            raise DeltaFileError(f'{name!r} has {len(values[name])} values for {len(connections[name])} connections')
    chosen_by = content['settings'], content.get('loss')
    selection = Selection(content['method'], connections, tuple(content['whole']), content['architecture'], *chosen_by)
    whole = {name.removeprefix(WHOLE): value for name, value in tensors.items() if name.startswith(WHOLE)}
    return Delta(selection, values, whole, Base(**content['base']), content['target'], Origin(**content['origin']))
