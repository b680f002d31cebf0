"""Text for people: tables, lists of names, suggestions for misspelled names, and text that is safe to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def printable(text: str) -> str:
    """``text`` on one line, with control characters, which would steer a terminal, as escapes."""
    whole = text.encode('utf-8', 'backslashreplace').decode()
    return ''.join(repr(char)[1:-1] if unicodedata.category(char) in ('Cc', 'Cf') else char for char in whole)


def table_cell(text: str) -> str:
    """``text`` as a cell of a Markdown table, with bars escaped."""
    return printable(text).replace('|', '\\|')


def figure_text(text: str) -> str:
    """``text`` for matplotlib, which would read text between two dollars as a formula."""
    return printable(text).replace('$', '\\$')


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; the first column is aligned left, the others right."""
    lines = _aligned([[table_cell(cell) for cell in row] for row in (head, *rows)])
    first, *others = map(len, lines[0])
    rule = ['-' * first, *('-' * (width - 1) + ':' for width in others)]
    return '\n'.join(f'| {" | ".join(row)} |' for row in (lines[0], rule, *lines[1:]))


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal or a log, columns two spaces apart; the first column is aligned left, the others right."""
    lines = _aligned([[printable(cell) for cell in row] for row in (head, *rows)])
    return '\n'.join('  '.join(row).rstrip() for row in lines)


def _aligned(lines: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Pad all cells of a column to one width."""
    columns: list[list[str]] = []
    for column in zip(*lines, strict=True):
        pad, width = (str.rjust if columns else str.ljust), max(map(len, column))
        columns.append([pad(cell, width) for cell in column])
    return list(zip(*columns, strict=True))


def listed(names: Sequence[str]) -> str:
    """The first three names in quotes and the number of the others; ``'nothing'`` without names."""
    rest = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return ', '.join(map(repr, names[:3])) + rest or 'nothing'


def nearest(name: object, names: Iterable[str], count: int = 3, alike: float = 0.0) -> str:
    """Up to ``count`` of ``names`` that are spelled most like ``name``, the best first, joined by commas.

    Args:
        name: The name that was given; other values count as the text that they print.
        names: The known names.
        count: Maximum number of names in the result.
        alike: Minimum similarity, 0 to 1. With 0 the result is empty only if ``names`` is.
    """
    return ', '.join(get_close_matches(str(name), list(names), count, alike))
