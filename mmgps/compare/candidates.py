"""The methods to compare, as the command line names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mmgps.engine.configs.components import METHOD_NAMES, build_method, check_method_name
from mmgps.utils.names import nearest

from .options import parse_options


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
