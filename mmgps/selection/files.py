"""Selections in files and checkpoints, with a format version and a digest, and without executable code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .checked_safetensors import IntegrityError, add_digest, check_digest, read_checked, write_checked
from .selection import Connections, Selection

FORMAT_VERSION = 1
MAX_SIZE = 2**62
METADATA_KEY = 'mmgps.selection'


class SelectionFileError(ValueError):
    """A selection file or the selection within a checkpoint cannot be trusted."""


def save_selection(selection: Selection, path: str | os.PathLike[str]) -> None:
    """Write ``selection`` to ``path``; the file appears complete or not at all."""
    state = pack_selection(selection)
    write_checked(path, METADATA_KEY, state['metadata'], state['positions'])


def load_selection(path: str | os.PathLike[str]) -> Selection:
    """Read a file that :func:`save_selection` wrote.

    Raises:
        FileNotFoundError: If the file does not exist.
        SelectionFileError: If it is truncated, altered, of another kind, or of a newer format.
    """
    try:
        metadata, positions = read_checked(path, METADATA_KEY, 'selection')
        return unpack_selection({'metadata': metadata, 'positions': positions})
    except (IntegrityError, SelectionFileError) as error:
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
        'positions': {name: list(value.shape) for name, value in positions.items()},
    }
    return {'metadata': add_digest(content, positions), 'positions': positions}


def unpack_selection(state: Any) -> Selection:
    """The inverse of :func:`pack_selection`.

    Raises:
        SelectionFileError: If ``state`` is damaged or no packed selection.
    """
    if not isinstance(state, Mapping):
        raise SelectionFileError(f'expected a packed selection, found {type(state).__name__}')
    positions = state.get('positions', {})
    try:
        content = check_digest(state.get('metadata'), positions, 'selection', FORMAT_VERSION)
    except IntegrityError as error:
        raise SelectionFileError(str(error)) from error
    try:
        stored = {name: list(value.shape) for name, value in positions.items()}
        if content.get('positions', stored) != stored:  # the digest omits shapes, and so do older files
            raise ValueError('its positions have other shapes than it describes, so it was altered')
        connections = checked_connections(content['shapes'], positions)
        return checked_selection(content, connections)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SelectionFileError(f'its description is not that of a selection: {error!r}') from error


def checked_connections(shapes: Mapping[str, Any], positions: Mapping[str, Tensor]) -> dict[str, Connections]:
    """Build and check the chosen connections of each weight.

    Args:
        shapes: Weight name to neurons and fan-in.
        positions: Weight name to positions, for the same names.

    Raises:
        TypeError: If a value has another type.
        ValueError: If names, sizes or positions are wrong.
    """
    if shapes.keys() != positions.keys():
        odd = sorted(shapes.keys() ^ positions.keys())
        raise ValueError(f'expected positions and a shape for each weight, found only one of them for {odd[0]!r}')
    found = {}
    for name, shape in shapes.items():
        check_sizes(shape)
        found[name] = Connections(positions[name], *shape)
        found[name].check()
    return {name: replace(item, positions=item.positions.long()) for name, item in found.items()}


def check_sizes(shape: Any) -> None:
    """Raise a ``ValueError`` unless ``shape``, read from a file, is a list of neurons and fan-in."""
    whole = isinstance(shape, list) and len(shape) == 2 and all(type(size) is int for size in shape)
    if not whole or min(shape) < 0 or max(shape) > MAX_SIZE or shape[0] * shape[1] > MAX_SIZE:
        raise ValueError(f'expected neurons and fan-in, found {str(shape)[:80]}')


def checked_selection(content: Mapping[str, Any], connections: Mapping[str, Connections]) -> Selection:
    """Build a selection from its description in a file and its connections.

    Raises:
        TypeError: If a value has another type.
        KeyError: If a value is missing.
        ValueError: If a parameter is named twice.
    """
    whole, settings, loss = content['whole'], content['settings'], content.get('loss')
    kinds = [(content['method'], str), (content['architecture'], str), (whole, list), (settings, dict)]
    kinds += [(name, str) for name in whole] + ([] if loss is None else [(loss, dict)])
    for value, kind in kinds:
        if not isinstance(value, kind):
            raise TypeError(f'expected {kind.__name__}, found {str(value)[:80]}')
    if len({*whole, *connections}) != len(whole) + len(connections):
        raise ValueError('a parameter is named twice')
    return Selection(content['method'], connections, tuple(whole), content['architecture'], settings, loss)


def _narrow(positions: Tensor) -> Tensor:
    """Positions in 32 bits if those suffice, else in 64."""
    fits = not len(positions) or int(positions.max()) < 2**31
    return positions.detach().cpu().to(torch.int32 if fits else torch.int64).contiguous()
