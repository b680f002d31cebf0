"""The methods to compare, as the command line names them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mmgps.engine.components import METHOD_NAMES, build_method, check_method_name


@dataclass(frozen=True)
class Candidate:
    """A method with its options.

    Args:
        label: As it was asked for, such as ``gps:k=5``; names its row.
        name: Out of ``METHOD_NAMES``.
        options: Its arguments, as pairs.
    """

    label: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def folder(self) -> str:
        """The label as the name of a folder."""
        return re.sub(r'[^\w.=,-]+', '_', self.label)


def parse_candidate(text: str) -> Candidate:
    """Read ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``; see :func:`parse_options` for the values.

    Raises:
        ValueError: For an unknown name, with the nearest, for an option without a value, or with a value that the
            method refuses.
        TypeError: For an option that the method does not have.
    """
    name, _, options = text.partition(':')
    check_method_name(name)
    found = Candidate(text, name, parse_options(options))
    build_method({**METHOD_NAMES[name], **dict(found.options)})  # now, not in the first of its runs
    return found


def parse_assignments(texts: Iterable[str], candidates: Sequence[Candidate]) -> dict[str, tuple[float, ...]]:
    """Read ``METHOD=a,b,c``: the label of a candidate, or a name that stands for all candidates of that name.

    Args:
        texts: As on the command line. What names a label counts more than what names its method.
        candidates: What is compared.

    Returns:
        Labels to numbers.

    Raises:
        ValueError: For a method that is not compared, or for numbers that are not positive.
    """
    given = dict(map(_assignment, texts))
    known = {part for candidate in candidates for part in (candidate.label, candidate.name)}
    for label in given.keys() - known:
        near = get_close_matches(label, known, 1)
        hint = f'; did you mean {near[0]!r}?' if near else ''
        raise ValueError(f'a rate is given for {label!r}, which is not among the methods compared{hint}')
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


OPENING, CLOSING, QUOTES = '([{', ')]}', '\'"'


def parse_options(text: str) -> tuple[tuple[str, Any], ...]:
    """Read ``KEY=VALUE,KEY=VALUE``.

    A value is what Python reads it as, else a string: ``5``, ``1e-3``, ``qkv``, ``()``. Several values stand in
    brackets, with or without quotes, or one after the other: ``parts=[qkv,proj]`` and ``parts=qkv,proj`` are
    ``('qkv', 'proj')``. So a part without ``=`` is a further value of the option before it.

    Returns:
        Keys with values; several values are a tuple.

    Raises:
        ValueError: For a value without a key, or for brackets or quotes that do not close.
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
    """``text`` as Python reads it, else a string or, in brackets, a tuple of strings. A list becomes a tuple."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        if f'{text[:1]}{text[-1:]}' in ('()', '[]'):
            return tuple(parse_value(part) for part in split_outside(text[1:-1]) if part)
        return text
    return tuple(value) if isinstance(value, list) else value


def split_outside(text: str) -> list[str]:
    """Split at the commas that stand in no brackets and no quotes.

    Raises:
        ValueError: For brackets or quotes that do not close.
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
