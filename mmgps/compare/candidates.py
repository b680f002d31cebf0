"""The methods to compare, as the command line names them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mmgps.engine.configs.components import METHOD_NAMES, build_method, check_method_name
from mmgps.utils.text import nearest

OPENING, CLOSING, QUOTES = '([{', ')]}', '\'"'


@dataclass(frozen=True)
class Candidate:
    """A method with its options.

    Args:
        label: Text that named it, such as ``gps:k=5``; the label of its row.
        name: Key of ``METHOD_NAMES``.
        options: Names and values of its arguments.
    """

    label: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def folder(self) -> str:
        """Folder name made from the label."""
        return re.sub(r'[^\w.=,-]+', '_', self.label)


def parse_candidate(text: str) -> Candidate:
    """Read ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``; see :func:`parse_options` for the values.

    Raises:
        ValueError: If the name is unknown (names the nearest), an option has no value, or the method refuses a value.
        TypeError: If the method does not have an option.
    """
    name, _, options = text.partition(':')
    check_method_name(name)
    found = Candidate(text, name, parse_options(options))
    build_method({**METHOD_NAMES[name], **dict(found.options)})  # now, not in the first of its runs
    return found


def parse_assignments(texts: Iterable[str], candidates: Sequence[Candidate]) -> dict[str, tuple[float, ...]]:
    """Read ``METHOD=a,b,c``: the label of a candidate, or a name that stands for all candidates of that name.

    Args:
        texts: Assignments from the command line. A label takes precedence over the name of its method.
        candidates: Methods of the comparison.

    Returns:
        Rates by label.

    Raises:
        ValueError: If a method is not compared, or a rate is not a positive number.
    """
    given = dict(map(_assignment, texts))
    known = {part for candidate in candidates for part in (candidate.label, candidate.name)}
    for label in given.keys() - known:
        near = nearest(label, known, 1)
        raise ValueError(f'a rate is given for {label!r}, which is not among the methods compared; nearest: {near}')
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

    Values are read as Python literals, or else as strings: ``5``, ``1e-3``, ``qkv``, ``()``. Several values are written
    in brackets, with or without quotes, or as a plain list: ``parts=[qkv,proj]`` and ``parts=qkv,proj`` both mean
    ``('qkv', 'proj')``. A part without ``=`` is therefore one more value of the option before it.

    Returns:
        Pairs of key and value; several values form a tuple.

    Raises:
        ValueError: If a value has no key, or brackets or quotes do not close.
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
        ValueError: If brackets or quotes do not close.
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
