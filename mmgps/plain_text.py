"""Names from outside in the texts of tables, terminals and pictures."""

from __future__ import annotations

import unicodedata


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
