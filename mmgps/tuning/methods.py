"""All methods of the package, by the names that users give."""

from __future__ import annotations

from collections.abc import Callable

from .adapter import Adapter
from .base import TuningMethod
from .bias import BiasTuning
from .full import FullTuning
from .gps import GPS
from .linear import LinearProbe
from .lora import LoRA
from .spt import SPTAdapter, SPTLoRA
from .ssf import SSF
from .vpt import VPTDeep, VPTShallow

PLAIN = (GPS, FullTuning, LinearProbe, BiasTuning)
"""Methods that train numbers of the base alone."""
INJECTED = (LoRA, Adapter, VPTShallow, VPTDeep, SSF, SPTLoRA, SPTAdapter)
"""Methods that inject modules; their settings are their arguments."""
METHODS: dict[str, Callable[..., TuningMethod]] = {kind.name: kind for kind in (*PLAIN, *INJECTED)}
INJECTING: dict[str, Callable[..., TuningMethod]] = {kind.name: kind for kind in INJECTED}
