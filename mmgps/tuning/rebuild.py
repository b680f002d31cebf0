"""Rebuild a method from the name and settings in a selection."""

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
"""Methods that inject modules; their settings are their arguments."""
KEYS = {Bottleneck.key, LowRank.key, ScaleShift.key, PROMPT_KEY}
"""Names of the injected modules within their owners."""


def rebuild_method(selection: Selection) -> TuningMethod:
    """The method that made ``selection``, to inject its modules.

    Raises:
        ValueError: For a method that injects no modules or is unknown to mmgps; names the known ones.
    """
    if selection.method not in INJECTING:
        raise ValueError(
            f'no method of mmgps that adds modules is called {selection.method!r}; expected one of '
            f'{", ".join(INJECTING)}; pass the method itself if it is your own'
        )
    kind = INJECTING[selection.method]
    return cast(TuningMethod, kind(**dict(selection.settings)))
