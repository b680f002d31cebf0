"""Names of the methods on the command line and in the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from mmgps.selection import Selection
from mmgps.sparse import CompactTraining, FusedAttention, LeanOption, MaskedTraining, Recomputation
from mmgps.tuning import BiasTuning, FullTuning, LinearProbe
from mmgps.utils.names import nearest

from .lora import Lora, UnmergedLora
from .recipes import Lean, Recipe, Selected, SparseClass, Tuned

FIXED: dict[str, Callable[[], Recipe]] = {
    'full': lambda: Tuned(FullTuning()),
    'linear': lambda: Tuned(LinearProbe()),
    'bias': lambda: Tuned(BiasTuning()),
    'lora-r8': lambda: Lora(8),
    'lora-r8-unmerged': lambda: UnmergedLora(8),
}
DEFAULT = ('full', 'linear', 'bias', 'lora-r8')
SPARSE: dict[str, SparseClass] = {'masked': MaskedTraining, 'compact': CompactTraining}


def fused() -> list[LeanOption]:
    return [FusedAttention()]


def lean() -> list[LeanOption]:
    return [FusedAttention(), Recomputation()]


def leaner() -> list[LeanOption]:
    return [FusedAttention(), Recomputation(hidden=0.4)]


LEAN: dict[str, Callable[[], Sequence[LeanOption]]] = {'fused': fused, 'lean': lean, 'leaner': leaner}
"""What may follow the name of a method behind a plus, such as ``bias+lean``: the options that it stands for."""

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
        method, _, options = name.partition('+')
        if (method not in FIXED and not GPS_NAME.fullmatch(method)) or ('+' in name and options not in LEAN):
            known = [*FIXED, 'gps-masked-k1', 'gps-compact-k1']
            ends = [f'+{end}' for end in LEAN]
            near = nearest(name, [*known, *(one + end for one in known for end in ends)], 1)
            raise ValueError(
                f'unknown method {name!r}, expected one of {", ".join(known)}, with any K, and perhaps one of '
                f'{", ".join(ends)} behind it; nearest: {near}'
            )
    found = [GPS_NAME.fullmatch(name.partition('+')[0]) for name in names]
    return sorted({int(match[2]) for match in found if match})


def recipe_of(name: str, selections: Mapping[int, Selection]) -> Recipe:
    """The method called ``name``, with the selection for its K out of ``selections``."""
    if '+' in name:
        method, _, options = name.partition('+')
        return Lean(recipe_of(method, selections), LEAN[options])
    match = GPS_NAME.fullmatch(name)
    return Selected(selections[int(match[2])], SPARSE[match[1]]) if match else FIXED[name]()
