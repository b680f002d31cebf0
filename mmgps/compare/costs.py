"""Step time and memory as ``tools/benchmark.py`` measured them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from .candidates import Candidate

COSTS = ('step_s', 'peak_bytes')


def read_costs(path: str | Path, candidates: Sequence[Candidate]) -> dict[str, dict[str, float]]:
    """The costs of those candidates that the file has.

    Args:
        path: Written by ``tools/benchmark.py --json``.
        candidates: What is compared.

    Returns:
        Labels to ``step_s`` and ``peak_bytes``; the latter is missing if it was not measured.

    Raises:
        ValueError: If the file has none of them, or is no such file.
    """
    methods = json.loads(Path(path).read_text()).get('methods')
    if not isinstance(methods, dict):
        raise ValueError(f'{path} has no "methods"; give the file that tools/benchmark.py --json wrote')
    found = {}
    for candidate in candidates:
        name = next((name for name in _names(candidate) if name in methods), None)
        if name is not None:
            found[candidate.label] = {cost: methods[name][cost] for cost in COSTS if methods[name].get(cost)}
    if not found:
        raise ValueError(f'{path} has costs of {", ".join(methods)}, and of none of the methods compared')
    return found


def _names(candidate: Candidate) -> Iterator[str]:
    """What the benchmark may call the candidate."""
    options = dict(candidate.options)
    yield candidate.label
    if candidate.name == 'gps' and options.keys() <= {'k'}:
        yield f'gps-compact-k{options.get("k", 1)}'
    elif candidate.name == 'lora' and options.keys() <= {'rank'}:
        yield f'lora-r{options.get("rank", 8)}'
    elif not options:
        yield candidate.name
