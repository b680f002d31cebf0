"""Save and restore what hooks remember from earlier iterations."""

from __future__ import annotations

import copy
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import Runner

from mmgps.selection.fingerprint import bits

from .checkpoints import map_parts
from .run_settings import digest

HOOKS_KEY = 'mmgps_hooks'
KNOWN = ('mmengine', 'mmgps', 'mmcv', 'mmseg', 'mmpretrain', 'mmdet', 'mmpose', 'mmaction', 'mmrotate', 'mmyolo')
"""Packages whose hooks, except ``EarlyStoppingHook``, save their state or derive it from the position."""


class HookMemory:
    """Attributes of hooks that change in training.

    For an unknown hook that lacks ``before_save_checkpoint`` or ``after_load_checkpoint``, every attribute that has
    changed since training began is saved, if it consists of numbers, strings, tensors, lists and dicts. Attributes are
    restored before ``before_train``, so a hook that sets them there starts anew.

    An attribute that is True or False is not restored: it may record that the hook changed the model or the data of its
    process, and a resumed process has not made that change.

    Args:
        exempt: Names of hook classes whose memory has no effect.
    """

    def __init__(self, exempt: Sequence[str] = ()) -> None:
        self._exempt = exempt
        self._start: dict[str, dict[str, str]] = {}
        self._kept: dict[str, set[str]] = {}
        self._held: dict[str, Any] | None = None

    def begin(self, runner: Runner) -> None:
        """Record the start values of every hook, once all have begun to train."""
        self._start = {name: _digests(hook) for name, hook in self._hooks(runner)}

    def hold(self, runner: Runner) -> None:
        """Save the present state until :meth:`release`: during a validation some hooks have stepped and others not."""
        self._held = copy.deepcopy(self._moved(runner))

    def release(self) -> None:
        """Save the current state again."""
        self._held = None

    def pack(self, runner: Runner) -> dict[str, Any]:
        """For each hook with a memory: its ``values``, the ``kinds`` of values that are saved as another type, and
        ``lost``, the names of attributes that cannot be saved.
        """
        return self._moved(runner) if self._held is None else self._held

    def restore(self, runner: Runner, packed: Mapping[str, Any]) -> None:
        """Restore the hooks of ``runner`` from a checkpoint.

        Raises:
            ValueError: If a hook remembers values that no checkpoint can hold; names the hook and its attributes.
        """
        for name, hook in self._hooks(runner):
            found = packed.get(name)
            if not found:
                continue
            if found['lost']:
                raise ValueError(
                    f'{name} had changed {", ".join(found["lost"])} by the time of the checkpoint. Only '
                    'numbers, strings, tensors, lists and dicts of a hook are restored, no switches and no objects, so '
                    'the resumed run would differ. Let the hook save and load them in before_save_checkpoint and '
                    'after_load_checkpoint, or, if they decide nothing or are set again, add '
                    f'exempt=[{type(hook).__name__!r}] to mmgps.ExactResumeHook'
                )
            for attribute, value in found['values'].items():
                setattr(hook, attribute, _as(value, *found['kinds'].get(attribute, ())))
            self._kept[name] = set(found['values'])

    def _moved(self, runner: Runner) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, hook in self._hooks(runner):
            start, kept = self._start.get(name, {}), self._kept.get(name, set())
            moved = {key for key, digest in _digests(hook).items() if start.get(key) != digest} | kept
            values = {key: value for key, value in vars(hook).items() if key in moved}
            lost = sorted(key for key, value in values.items() if isinstance(value, bool) or not _comes_back(value))
            if values:
                plain = {key: map_parts(value, _plain) for key, value in values.items() if key not in lost}
                kinds = {key: _kind(values[key]) for key in plain if _kind(values[key])}
                found[name] = dict(values=plain, kinds=kinds, lost=lost)
        return found

    def _hooks(self, runner: Runner) -> Iterator[tuple[str, Hook]]:
        """The hooks that need help, with a name for each."""
        seen: dict[str, int] = {}
        for hook in runner.hooks:
            kind = type(hook)
            seen[kind.__name__] = seen.get(kind.__name__, 0) + 1
            cares = (kind.before_save_checkpoint, kind.after_load_checkpoint)
            by_itself = cares[0] is not Hook.before_save_checkpoint and cares[1] is not Hook.after_load_checkpoint
            if not (_is_own(hook) or by_itself or kind.__name__ in self._exempt):
                at = seen[kind.__name__]
                yield kind.__name__ if at == 1 else f'{kind.__name__} number {at}', hook


def needs_validation(hooks: Iterable[Hook]) -> bool:
    """Return True if a hook acts on validation scores and so affects the further run or the files it leaves."""
    return any(
        getattr(hook, 'save_best', None)
        or (type(hook).after_val_epoch is not Hook.after_val_epoch and not _is_own(hook))
        for hook in hooks
    )


def is_plain(value: Any) -> bool:
    """Return True if a checkpoint without code can hold ``value``."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(is_plain(part) for item in value.items() for part in item)
    if isinstance(value, list | tuple | set | deque):
        return type(value) in (list, tuple, set, deque) and all(map(is_plain, value))
    return isinstance(value, bool | int | float | str | None | torch.Tensor | np.generic | np.ndarray)


def _is_own(hook: Hook) -> bool:
    return type(hook).__module__.partition('.')[0] in KNOWN and not isinstance(hook, EarlyStoppingHook)


def _plain(value: Any) -> Any:
    """Convert NumPy numbers and arrays, sets and deques to Python numbers, tensors and lists."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    return map_parts(list(value), _plain) if isinstance(value, set | deque) else value


def _comes_back(value: Any, within: bool = False) -> bool:
    """Return True if a checkpoint restores ``value`` exactly: sets, deques and arrays only outside of containers."""
    if within and _kind(value):
        return False
    parts = [part for item in value.items() for part in item] if isinstance(value, dict) else value
    inner = parts if isinstance(value, dict | list | tuple | set | deque) else ()
    return is_plain(value) and all(_comes_back(part, True) for part in inner)


def _kind(value: Any) -> list[Any]:
    """Arguments of :func:`_as` for a value that :func:`_plain` saves as another type."""
    if isinstance(value, deque):
        return ['deque', value.maxlen]
    return [type(value).__name__] if isinstance(value, set | np.ndarray) else []


def _as(value: Any, kind: str = '', maxlen: int | None = None) -> Any:
    """Convert ``value`` from a checkpoint to the type that the hook had."""
    if kind == 'deque':
        return deque(value, maxlen)
    if kind == 'set':
        return set(value)
    return value.numpy() if kind == 'ndarray' else value


def _digests(hook: Hook) -> dict[str, str]:
    return {name: _digest(value) for name, value in vars(hook).items()}


def _digest(value: Any) -> str:
    """Digest that is equal for equal values; the identity of an object that is not plain."""
    if not is_plain(value):
        return f'{type(value).__name__} {id(value)}'
    return digest(map_parts(value, _comparable))


def _comparable(value: Any) -> Any:
    """Replace a value whose ``repr`` is shortened or in arbitrary order."""
    kind = type(value).__name__
    if isinstance(value, torch.Tensor):
        return kind, hashlib.sha256(bits(value).numpy().data).hexdigest()
    if isinstance(value, np.ndarray):
        return kind, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, set):
        return kind, sorted(map(repr, value))
    return (kind, map_parts(list(value), _comparable)) if isinstance(value, deque) else value
