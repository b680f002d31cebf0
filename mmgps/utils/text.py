"""Markdown tables, names in messages, and names from outside made safe to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def printable(text: str) -> str:
    """``text`` on one line, with control characters (which move a terminal's cursor, or colour it) as escapes."""
    whole = text.encode('utf-8', 'backslashreplace').decode()
    return ''.join(repr(char)[1:-1] if unicodedata.category(char) in ('Cc', 'Cf') else char for char in whole)


def table_cell(text: str) -> str:
    """``text`` as a cell of a Markdown table, with bars escaped."""
    return printable(text).replace('|', '\\|')


def figure_text(text: str) -> str:
    """``text`` for matplotlib, with dollars escaped: it reads text between two of them as a formula."""
    return printable(text).replace('$', '\\$')


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first ``most`` names in quotes, and how many more there are; ``'nothing'`` without names."""
    rest = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(map(repr, names[:most])) + rest or 'nothing'


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """The ``most`` names among ``known`` that are closest to ``name``, for a message; empty if nothing is known."""
    return ', '.join(get_close_matches(name, list(known), most, 0.0))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, the first to the left and the others to the right."""
    head, rows = list(map(table_cell, head)), [list(map(table_cell, row)) for row in rows]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [_line(row, widths) for row in [head, *rows]]
    rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
    return '\n'.join([lines[0], _line(rule, widths), *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
    return f'| {" | ".join(cells)} |'
