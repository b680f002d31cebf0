"""Chosen connections as small integers: the input columns of each neuron."""

from __future__ import annotations

import torch
from torch import Tensor

from mmgps.selection import Connections

INT16 = 2**15
INTEGERS = {torch.int16, torch.int32, torch.int64}


class ColumnsError(ValueError):
    """Columns do not describe connections of the weight."""


def pack_columns(connections: Connections) -> dict[str, Tensor]:
    """``columns``, and where the neurons differ in how many they have, ``counts``.

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
        ColumnsError: If the types are others, a column lies outside the weight or comes twice, or the counts are not
            those of the columns.
    """
    kinds = {value.dtype for value in (columns, counts) if value is not None}
    if not kinds <= INTEGERS or (counts is not None and (counts.dim(), columns.dim()) != (1, 1)):
        raise ColumnsError(f'columns and counts are {", ".join(map(str, kinds))}; expected integers in one dimension')
    if counts is None and (columns.dim() != 2 or len(columns) != neurons):
        rows = len(columns) if columns.dim() == 2 else columns.numel()
        raise ColumnsError(f'{rows} columns for {neurons} neurons: expected as many, in two dimensions')
    if counts is None and not columns.numel():  # whatever number of neurons: none of them takes memory
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
