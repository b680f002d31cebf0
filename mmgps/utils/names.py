"""Names that were misspelled."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
