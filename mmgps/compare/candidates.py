"""The methods to compare and their learning rates, as the command line names them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmgps.engine.configs.components import METHOD_NAMES, build_method, check_method_name
from mmgps.utils.text import nearest

OPENING, CLOSING, QUOTES = '([{', ')]}', '\'"'
GRID = (1e-3, 3e-3, 1e-2)
GRIDS = {'full': (3e-5, 1e-4, 3e-4), 'linear': (3e-3, 1e-2, 3e-2)}
"""Default rates to try. Training all parameters of a pre-trained network takes about a thirtieth of the rate that suits
a small selection; linear probing trains a new head."""

ON_THE_HEAD = {'linear'}
"""Methods that train nothing of the backbone; their rate is that of the head."""


@dataclass(frozen=True)
class Candidate:
    """A method with its options.

    Args:
        label: Text from the command line, such as ``gps:k=5``; labels the row of the table.
        name: Key of ``METHOD_NAMES``.
        options: Names and values of its arguments.
    """

    label: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def folder(self) -> str:
        """The label as a folder name."""
        return re.sub(r'[^\w.=,-]+', '_', self.label)


def parse_candidate(text: str) -> Candidate:
    """Read ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``; see :func:`parse_options` for the values.

    Raises:
        ValueError: If the name is unknown (names the nearest), an option has no value, or the method refuses a value.
        TypeError: If the method has no such option.
    """
    name, _, options = text.partition(':')
    check_method_name(name)
    found = Candidate(text, name, parse_options(options))
    build_method({**METHOD_NAMES[name], **dict(found.options)})  # fail now, not in the first run
    return found


def parse_assignments(texts: Iterable[str], candidates: Sequence[Candidate]) -> dict[str, tuple[float, ...]]:
    """Read ``METHOD=a,b,c``, where METHOD is the label of a candidate or a name shared by several candidates.

    Args:
        texts: Assignments from the command line. A label takes precedence over a name.
        candidates: Methods of the comparison.

    Returns:
        Rates by label.

    Raises:
        ValueError: If a method is not part of the comparison, or a rate is not a positive number.
    """
    given = dict(map(_assignment, texts))
    known = {part for candidate in candidates for part in (candidate.label, candidate.name)}
    for label in given.keys() - known:
        near = nearest(label, known, 1)
        raise ValueError(f'a rate is given for {label!r}, which is not among the compared methods; nearest: {near}')
    found = {c.label: given.get(c.label, given.get(c.name)) for c in candidates}
    return {label: values for label, values in found.items() if values}


def _assignment(text: str) -> tuple[str, tuple[float, ...]]:
    label, _, values = text.rpartition('=')
    try:
        rates = tuple(sorted({float(value) for value in values.split(',')}))
    except ValueError:
        rates = ()
    if not label or not rates or not all(0 < rate < float('inf') for rate in rates):
        raise ValueError(f'{text!r}: expected METHOD=RATE, or METHOD=RATE,RATE,... with positive numbers')
    return label, rates


def parse_options(text: str) -> tuple[tuple[str, Any], ...]:
    """Read ``KEY=VALUE,KEY=VALUE``.

    A value is a Python literal or else a string: ``5``, ``1e-3``, ``qkv``, ``()``. Several values stand in brackets,
    with or without quotes, or simply one after the other: ``parts=[qkv,proj]`` and ``parts=qkv,proj`` both mean
    ``('qkv', 'proj')``. A part without ``=`` is therefore another value of the preceding option.

    Returns:
        Pairs of key and value; several values form a tuple.

    Raises:
        ValueError: If a value has no key, or a bracket or quote is not closed.
    """
    found: list[tuple[str, list[Any]]] = []
    for part in filter(None, split_outside(text)):
        key, sign, value = part.partition('=')
        if sign and key.isidentifier():
            found.append((key, [parse_value(value)]))
        elif found:
            found[-1][1].append(parse_value(part))
        else:
            raise ValueError(f'{part!r} is no option of a method; write KEY=VALUE, such as gps:k=5')
    return tuple((key, values[0] if len(values) == 1 else tuple(values)) for key, values in found)


def parse_value(text: str) -> Any:
    """Read a Python literal, else a bracketed tuple of strings, else a string. A list becomes a tuple."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        if f'{text[:1]}{text[-1:]}' in ('()', '[]'):
            return tuple(parse_value(part) for part in split_outside(text[1:-1]) if part)
        return text
    return tuple(value) if isinstance(value, list) else value


def split_outside(text: str) -> list[str]:
    """Split at the commas outside brackets and quotes.

    Raises:
        ValueError: If a bracket or quote is not closed.
    """
    parts, open_, quote = [''], '', ''
    for sign in text:
        if sign == ',' and not open_ and not quote:
            parts.append('')
            continue
        parts[-1] += sign
        if quote or sign in QUOTES:
            quote = sign if not quote else '' if sign == quote else quote
        elif sign in OPENING:
            open_ += CLOSING[OPENING.index(sign)]
        elif sign in CLOSING:
            if open_[-1:] != sign:
                raise ValueError(f'{text!r}: {sign!r} closes no bracket')
            open_ = open_[:-1]
    if open_ or quote:
        raise ValueError(f'{text!r}: expected {open_[::-1] or quote!r} at the end')
    return [part.strip() for part in parts]


def grids_of(
    candidates: Sequence[Candidate], given: Mapping[str, tuple[float, ...]], fixed: Mapping[str, tuple[float, ...]]
) -> dict[str, tuple[float, ...]]:
    """Return the rates to try, by label, for the candidates without a fixed rate.

    Args:
        candidates: Methods of the comparison.
        given: Rates that replace the default ones, by label.
        fixed: The rate of methods whose rate is not searched, by label.

    Raises:
        ValueError: If the methods have different numbers of rates, or a method has several fixed rates.
    """
    for label, rates in fixed.items():
        if len(rates) > 1:
            raise ValueError(f'--lr takes one rate, got {len(rates)} for {label}; list the rates to try with --lrs')
    searched = [c for c in candidates if c.label not in fixed]
    grids = {c.label: given.get(c.label, GRIDS.get(c.name, GRID)) for c in searched}
    if len({len(grid) for grid in grids.values()}) > 1:
        listed = ', '.join(f'{label} {len(grid)}' for label, grid in grids.items())
        raise ValueError(
            f'every method gets the same number of rates to try, found {listed}; give --lrs METHOD=... for the methods '
            'that differ, or fix a rate with --lr METHOD=RATE'
        )
    return grids


def set_rate(cfg: Config, candidate: Candidate, rate: float, target: str) -> None:
    """Set the learning rate of the backbone in ``cfg``; the head keeps the rate of the config.

    Args:
        cfg: Config to change in place.
        candidate: Method; for one in :data:`ON_THE_HEAD` the rate applies to the head.
        rate: Peak learning rate.
        target: Path of the backbone within the model.

    Raises:
        ValueError: If the config has no single optimizer with a learning rate.
    """
    wrapper = cfg.optim_wrapper
    if 'lr' not in wrapper.get('optimizer', {}):
        raise ValueError(
            'optim_wrapper.optimizer.lr is not set in the config, so the backbone cannot have a rate relative to it; '
            'compare on a config with one optimizer'
        )
    if candidate.name in ON_THE_HEAD:
        wrapper.optimizer.lr = rate
        return
    paramwise = wrapper.get('paramwise_cfg') or {}
    factor = rate / wrapper.optimizer.lr
    keys = {**paramwise.get('custom_keys', {})}
    keys.setdefault(target, {})
    keys = {key: {**own, 'lr_mult': factor} if key.startswith(target) else own for key, own in keys.items()}
    wrapper.paramwise_cfg = {**paramwise, 'custom_keys': keys}
