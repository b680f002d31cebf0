"""Deltas in files and checkpoints: safetensors with JSON metadata and a digest, without executable code."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from mmgps.selection import Connections
from mmgps.selection.checked_safetensors import IntegrityError, add_digest, check_digest, read_checked, write_checked
from mmgps.selection.files import check_sizes, checked_selection

from .base import DIGEST_LENGTH, BaseFingerprint
from .delta import Delta, Origin

FORMAT_VERSION = 1
METADATA_KEY = 'mmgps.delta'
WHOLE = 'tensors/'
CHOSEN = 'connections/'
PARTS = ('columns', 'counts', 'values')
KEPT = {'metrics': dict, 'config': dict, 'dataset_meta': dict, 'epoch': int, 'iteration': int}
DIGEST = re.compile(rf'\w+\[((?:\d{{1,18}}(?:,\d{{1,18}})*)?)\] [0-9a-f]{{{DIGEST_LENGTH}}}')
INTEGERS = {torch.int16, torch.int32, torch.int64}


class DeltaFileError(ValueError):
    """A delta file, or the delta within a checkpoint, cannot be trusted."""


def save_delta(delta: Delta, path: str | os.PathLike[str]) -> None:
    """Write ``delta`` to ``path``: the file appears complete or not at all."""
    state = pack_delta(delta)
    write_checked(path, METADATA_KEY, state['metadata'], state['tensors'])


def load_delta(path: str | os.PathLike[str]) -> Delta:
    """Read what :func:`save_delta` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        DeltaFileError: If the file is truncated, altered, of another kind, or of another format version.
    """
    try:
        metadata, tensors = read_checked(path, METADATA_KEY, 'delta')
        return unpack_delta({'metadata': metadata, 'tensors': tensors})
    except (IntegrityError, DeltaFileError) as error:
        raise DeltaFileError(f'{os.fspath(path)!r} is no intact delta file: {error}') from error


def pack_delta(delta: Delta) -> dict[str, Any]:
    """The delta as strings and tensors, for checkpoints that load with ``weights_only=True``."""
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
    return {'metadata': add_digest(content, tensors), 'tensors': tensors}


def unpack_delta(state: Any) -> Delta:
    """The inverse of :func:`pack_delta`.

    Raises:
        DeltaFileError: Names what is wrong with ``state``.
    """
    if not isinstance(state, Mapping):
        raise DeltaFileError(f'expected a packed delta, found {type(state).__name__}')
    tensors = state.get('tensors', {})
    try:
        content = check_digest(state.get('metadata'), tensors, 'delta', FORMAT_VERSION)
        return _assemble(content, tensors)
    except (IntegrityError, ColumnsError) as error:
        raise DeltaFileError(str(error)) from error
    except DeltaFileError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DeltaFileError(f'its description does not describe a delta: {error!r}') from error


def _assemble(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Delta:
    # the digest does not cover shapes
    shapes = content['shapes']
    wrong = [name for name, value in tensors.items() if list(value.shape) != shapes.get(name)]
    if shapes.keys() - tensors.keys():
        raise DeltaFileError(f'it lacks {sorted(shapes.keys() - tensors.keys())[0]!r}; it was altered')
    if wrong:
        raise DeltaFileError(f'{wrong[0]!r} has the shape {tuple(tensors[wrong[0]].shape)}; it was altered')
    base, target, origin = _base(content['base']), content['target'], _origin(content['origin'])
    if not isinstance(target, str):
        raise TypeError(f'expected the path of the backbone, found {str(target)[:80]}')
    connections, values, read = {}, {}, set()
    for name, shape in content['connections'].items():
        check_sizes(shape)
        _check_in_base(name, shape, base)
        parts = {part: tensors.get(f'{CHOSEN}{name}/{part}') for part in PARTS}
        read |= {f'{CHOSEN}{name}/{part}' for part, value in parts.items() if value is not None}
        if parts['columns'] is None or parts['values'] is None:
            raise DeltaFileError(f'{name!r} has no columns or no values')
        connections[name] = unpack_columns(parts['columns'], parts['counts'], *shape)
        values[name] = parts['values']
        if values[name].shape != connections[name].positions.shape:
            raise DeltaFileError(f'{name!r} has {values[name].numel()} values for {len(connections[name])} connections')
    selection = checked_selection(content, connections)
    whole = {name.removeprefix(WHOLE): value for name, value in tensors.items() if name.startswith(WHOLE)}
    if len(read) + len(whole) != len(tensors):
        raise DeltaFileError('it holds tensors that its description does not name')
    return Delta(selection, values, whole, base, target, origin)


def _base(described: Mapping[str, Any]) -> BaseFingerprint:
    """The described base, if all its digests are valid."""
    base = BaseFingerprint(**described)
    for name, digest in base.digests.items():
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise DeltaFileError(f'the base has no digest of {name!r}: found {str(digest)[:80]!r}')
    for name, digest in base.rests.items():
        if name not in base.digests or not DIGEST.fullmatch(digest):
            raise DeltaFileError(f'the base has no digest of the rest of {name!r}: found {str(digest)[:80]!r}')
    return base


def _origin(described: Mapping[str, Any]) -> Origin:
    """The described origin, if all its values have the right types."""
    origin = Origin(**described)
    for name, kind in KEPT.items():
        value = getattr(origin, name)
        if not isinstance(value, kind) and not (value is None and kind is int):
            raise DeltaFileError(f'its {name} are no {kind.__name__}: found {str(value)[:80]!r}')
    if not all(isinstance(score, int | float) for score in origin.metrics.values()):
        raise DeltaFileError(f'its metrics are no numbers: found {str(dict(origin.metrics))[:80]}')
    classes = origin.dataset_meta.get('classes')
    if not isinstance(classes, list | None):
        raise DeltaFileError(f'its classes are no list: found {str(classes)[:80]!r}')
    return origin


def _check_in_base(name: str, shape: list[int], base: BaseFingerprint) -> None:
    """Make sure that the base has a weight of ``shape``, neurons and fan-in, before allocating that size."""
    digest = DIGEST.match(base.digests.get(name, ''))
    if digest is None:
        raise DeltaFileError(f'it holds connections of {name!r}, which the base does not have')
    numel = math.prod(int(size) for size in digest[1].split(',') if size)
    if shape[0] * shape[1] != numel:
        raise DeltaFileError(
            f'{name!r} has {shape[0]} neurons of fan-in {shape[1]}, but {numel} numbers in the base: expected as many'
        )


INT16 = 2**15


class ColumnsError(ValueError):
    """Columns do not describe connections of the weight."""


def pack_columns(connections: Connections) -> dict[str, Tensor]:
    """``columns``, and ``counts`` if the neurons have different numbers of connections.

    ``columns`` are ``[neurons, k]``, or ``[chosen]`` neuron by neuron, in 16 bits where the fan-in allows, else in 32.
    ``counts`` are int32 ``[neurons]``.
    """
    counts = torch.bincount(connections.rows, minlength=connections.neurons)
    columns = connections.columns.to(torch.int16 if connections.fan_in <= INT16 else torch.int32)
    if len(counts) and bool((counts == counts[0]).all()):
        return {'columns': columns.view(connections.neurons, int(counts[0])).contiguous()}
    return {'columns': columns.contiguous(), 'counts': counts.to(torch.int32)}


def unpack_columns(columns: Tensor, counts: Tensor | None, neurons: int, fan_in: int) -> Connections:
    """The inverse of :func:`pack_columns`.

    Raises:
        ColumnsError: If the types are wrong, a column lies outside the weight or appears twice, or the counts do not
            match the columns.
    """
    kinds = {value.dtype for value in (columns, counts) if value is not None}
    if not kinds <= INTEGERS or (counts is not None and (counts.dim(), columns.dim()) != (1, 1)):
        raise ColumnsError(f'columns and counts are {", ".join(map(str, kinds))}; expected integers in one dimension')
    if counts is None and (columns.dim() != 2 or len(columns) != neurons):
        rows = len(columns) if columns.dim() == 2 else columns.numel()
        raise ColumnsError(f'{rows} columns for {neurons} neurons: expected as many, in two dimensions')
    if counts is None and not columns.numel():  # any number of neurons, none of which takes memory
        return Connections(torch.empty(0, dtype=torch.int64), neurons, fan_in)
    counts = torch.full((neurons,), columns.shape[1]) if counts is None else counts.long()
    flat = columns.reshape(-1).long()
    if (
        len(counts) != neurons
        or not bool(((counts >= 0) & (counts <= len(flat))).all())
        or int(counts.sum()) != len(flat)
    ):
        raise ColumnsError(f'{len(flat)} columns for {neurons} neurons do not add up')
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < fan_in:
        raise ColumnsError(f'columns go from {int(flat.min())} to {int(flat.max())}, the neurons have {fan_in} inputs')
    positions = torch.repeat_interleave(torch.arange(neurons), counts) * fan_in + flat
    if not bool((positions.diff() > 0).all()):
        raise ColumnsError('the columns of a neuron do not ascend')
    return Connections(positions, neurons, fan_in)
