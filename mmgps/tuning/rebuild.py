"""A method from what a selection says of it."""

from __future__ import annotations

from typing import cast

from mmgps.selection import Selection

from .adapter import Adapter, Bottleneck
from .base import TuningMethod
from .lora import LoRA, LowRank
from .spt import SPTAdapter, SPTLoRA
from .ssf import SSF, ScaleShift
from .vpt import PROMPT_KEY, VPTDeep, VPTShallow

INJECTING = {kind.name: kind for kind in (Adapter, LoRA, SPTAdapter, SPTLoRA, SSF, VPTDeep, VPTShallow)}
"""The methods that add modules; their settings are their arguments."""
KEYS = {Bottleneck.key, LowRank.key, ScaleShift.key, PROMPT_KEY}
"""The names of what they add, within the modules that they add it to."""


def rebuild_method(selection: Selection) -> TuningMethod:
    """The method that made ``selection``, to put in place what it trains.

    Raises:
        ValueError: For a method that adds no modules, or one that mmgps does not know; names those that it does.
    """
    if selection.method not in INJECTING:
        raise ValueError(
            f'no method of mmgps that adds modules is called {selection.method!r}; expected one of '
            f'{", ".join(INJECTING)}; pass the method itself if it is your own'
        )
    kind = INJECTING[selection.method]
    return cast(TuningMethod, kind(**dict(selection.settings)))
