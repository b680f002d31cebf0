"""The logged values and the schedulers of a checkpoint as plain values instead of objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

KEY = 'mmgps_history'


def pack_history(checkpoint: dict[str, Any]) -> None:
    """Replace every ``HistoryBuffer`` of the message hub by its values and counts, and NumPy's numbers by Python's.

    torch since 2.6 refuses to load these objects, so mmengine 0.10.7 cannot resume from its own checkpoints. From the
    result it can, without mmgps too, which skips the logged values. Packing twice is packing once.

    Functions are left out of the states of schedulers: ``OneCycleLR`` keeps one, which is there when it is built.
    """
    checkpoint['message_hub'] = _plain(checkpoint['message_hub'])
    if 'param_schedulers' in checkpoint:
        checkpoint['param_schedulers'] = _without_functions(checkpoint['param_schedulers'])


def _without_functions(states: Any) -> Any:
    """``states`` of schedulers, a list or one list for each optimizer, without what can be called."""
    if isinstance(states, dict):
        return {name: _without_functions(part) for name, part in states.items()}
    return [{name: value for name, value in state.items() if not callable(value)} for state in states]


def _plain(value: Any) -> Any:
    """``value`` with buffers and NumPy's numbers as lists and Python's numbers."""
    if isinstance(value, HistoryBuffer):
        return {KEY: [values.tolist() for values in value.data]}
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value


def unpack_history(checkpoint: dict[str, Any]) -> None:
    """The inverse of :func:`pack_history`; leaves alone what it did not make."""
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, packed in scalars.items():
        if isinstance(packed, dict) and KEY in packed:
            scalars[name] = HistoryBuffer(*packed[KEY])
