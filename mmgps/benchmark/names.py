"""Names of the methods on the command line and in the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from mmgps.selection import Selection
from mmgps.sparse import CompactTraining, MaskedTraining
from mmgps.tuning import BiasTuning, FullTuning, LinearProbe

from .lora import Lora, UnmergedLora
from .recipes import Recipe, Selected, SparseClass, Tuned

FIXED: dict[str, Callable[[], Recipe]] = {
    'full': lambda: Tuned(FullTuning()),
    'linear': lambda: Tuned(LinearProbe()),
    'bias': lambda: Tuned(BiasTuning()),
    'lora-r8': lambda: Lora(8),
    'lora-r8-unmerged': lambda: UnmergedLora(8),
}
DEFAULT = ('full', 'linear', 'bias', 'lora-r8')
SPARSE: dict[str, SparseClass] = {'masked': MaskedTraining, 'compact': CompactTraining}
GPS_NAME = re.compile(r'gps-(masked|compact)-k([1-9]\d*)')


def default_names(ks: Sequence[int]) -> list[str]:
    """What is measured if nothing else is said: GPS compact at every K of ``ks``, and masked at the first."""
    return [*DEFAULT, f'gps-masked-k{ks[0]}', *(f'gps-compact-k{k}' for k in ks)]


def connections_per_neuron(names: Sequence[str]) -> list[int]:
    """The values of K in ``names``.

    Raises:
        ValueError: For a name of no method.
    """
    for name in names:
        if name not in FIXED and not GPS_NAME.fullmatch(name):
            known = [*FIXED, 'gps-masked-k1', 'gps-compact-k1']
            raise ValueError(
                f'unknown method {name!r}, expected one of {", ".join(known)}, with any K; '
                f'nearest: {get_close_matches(name, known, 1, 0.0)[0]}'
            )
    found = [GPS_NAME.fullmatch(name) for name in names]
    return sorted({int(match[2]) for match in found if match})


def recipe_of(name: str, selections: Mapping[int, Selection]) -> Recipe:
    """The method called ``name``, with the selection for its K out of ``selections``."""
    match = GPS_NAME.fullmatch(name)
    return Selected(selections[int(match[2])], SPARSE[match[1]]) if match else FIXED[name]()
