"""Options of a method as the command line writes them."""

from __future__ import annotations

import ast
from typing import Any

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
