"""Swap a fine-tuning method into a config."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config, ConfigDict

from .components import METHOD_NAMES

SELECTIVE = {
    'OptimWrapper': 'mmgps.GPSOptimWrapper',
    'AmpOptimWrapper': 'mmgps.GPSAmpOptimWrapper',
}
TUNE_HOOKS = ('mmgps.GPSHook', 'mmgps.TuneHook')
RESUME_HOOK = 'mmgps.ExactResumeHook'


def tune_config(cfg: Config, method: str, options: Mapping[str, Any] | None = None) -> Config:
    """Make ``cfg`` fine-tune its backbone by ``method``, in place.

    A method that the config has already is replaced; its target and number of selection batches stay. Wrappers of
    the optimizer become the selective ones of the same kind, and :class:`mmgps.engine.ExactResumeHook` is added.

    Args:
        cfg: Any config of an mm library.
        method: A short name out of ``METHOD_NAMES``.
        options: Arguments of the method, such as ``k`` of ``gps``.

    Returns:
        The same config.

    Raises:
        ValueError: For an unknown method, names the nearest.
    """
    if method not in METHOD_NAMES:
        near = get_close_matches(method, METHOD_NAMES, 1)
        hint = f'; did you mean {near[0]!r}?' if near else ''
        raise ValueError(f'unknown method {method!r}, expected one of {", ".join(METHOD_NAMES)}{hint}')
    hooks = list(cfg.get('custom_hooks') or [])
    kept = {
        key: hook[key] for hook in hooks if _is(hook, TUNE_HOOKS) for key in ('target', 'num_batches') if key in hook
    }
    hooks = [hook for hook in hooks if not _is(hook, TUNE_HOOKS)]
    hooks.append(
        dict(type='mmgps.TuneHook', method=dict(type=f'mmgps.{METHOD_NAMES[method]}', **(options or {})), **kept)
    )
    if not any(_is(hook, (RESUME_HOOK,)) for hook in hooks):
        hooks.append(dict(type=RESUME_HOOK))
    cfg.custom_hooks = hooks
    _make_selective(cfg.optim_wrapper)
    return cfg


def _is(hook: Any, types: tuple[str, ...]) -> bool:
    return isinstance(hook, Mapping) and hook.get('type') in types


def _make_selective(wrapper: ConfigDict) -> None:
    kind = wrapper.get('type', 'OptimWrapper')
    if isinstance(kind, str):
        wrapper['type'] = SELECTIVE.get(kind.removeprefix('mmengine.'), kind)
    for part in wrapper.values():
        if isinstance(part, Mapping) and 'optimizer' in part:
            _make_selective(part)
