"""Text for people: tables, and names from outside that are safe to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def printable(text: str) -> str:
    """``text`` on one line, with control characters (which move a terminal's cursor, or colour it) as escapes."""
    whole = text.encode('utf-8', 'backslashreplace').decode()
    return ''.join(repr(char)[1:-1] if unicodedata.category(char) in ('Cc', 'Cf') else char for char in whole)


def table_cell(text: str) -> str:
    """``text`` as a cell of a table in Markdown, which a bar would end."""
    return printable(text).replace('|', '\\|')


def figure_text(text: str) -> str:
    """``text`` as matplotlib draws it, which takes what stands between two dollars for a formula."""
    return printable(text).replace('$', '\\$')


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; the first column is aligned left, the others right."""
    lines = [[table_cell(cell) for cell in row] for row in (head, *rows)]
    widths = _widths(lines)
    rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
    return '\n'.join(f'| {" | ".join(_aligned(row, widths))} |' for row in (lines[0], rule, *lines[1:]))


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal or a log, columns two spaces apart; the first column is aligned left, the others right."""
    lines = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = _widths(lines)
    return '\n'.join('  '.join(_aligned(row, widths)).rstrip() for row in lines)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first ``most`` names in quotes, and how many more there are; ``'nothing'`` without names."""
    rest = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(map(repr, names[:most])) + rest or 'nothing'


def nearest(name: object, names: Iterable[str], count: int = 3, alike: float = 0.0) -> str:
    """The names that are spelled most like ``name``, the best first, joined by commas for a message.

    Args:
        name: The one that was given; anything but text counts as the text that it prints.
        names: Those that there are.
        count: How many to return at most.
        alike: Least similarity, from 0 to 1, of a name that is returned. With 0 the text is empty only if there are no
            names.
    """
    return ', '.join(get_close_matches(str(name), list(names), count, alike))
