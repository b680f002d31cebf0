"""Probe each architecture in its own process, and write each result at once."""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import os
import resource
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .architectures import Architecture
from .probe import describe_error, probe

#: Number of configs of an architecture to try until one trains without mmgps.
ATTEMPTS = 3


def sweep(found: Iterable[Architecture], folder: Path, timeout_s: float, memory_gib: float) -> None:
    """Write one JSON file per architecture into ``folder``; skip architectures that have one.

    Args:
        found: Architectures to probe.
        folder: Folder of the results.
        timeout_s: Seconds for one config.
        memory_gib: Address space of its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for architecture in found:
        path = folder / f'{name_of(architecture)}.json'
        if not path.exists():
            path.with_suffix('.part').write_text(json.dumps(_result(architecture, timeout_s, memory_gib), indent=1))
            os.replace(path.with_suffix('.part'), path)


def name_of(architecture: Architecture) -> str:
    """Return a unique file name for the architecture."""
    return f'{architecture.stack}-{Path(architecture.configs[0]).stem}'


def _result(architecture: Architecture, timeout_s: float, memory_gib: float) -> dict[str, Any]:
    result: dict[str, Any] = dict(stack=architecture.stack, types=architecture.types, trains=architecture.trains)
    if not architecture.trains:
        return dict(result, config=architecture.configs[0])
    failed = {}
    for config in architecture.configs[:ATTEMPTS]:
        facts = probed(architecture.stack, config, timeout_s, memory_gib)
        if facts['plain']['ok']:
            return dict(result, config=config, **facts)
        failed[config] = facts
    config = next(iter(failed))
    return dict(result, config=config, **failed[config])


def probed(stack: str, config: str, timeout_s: float, memory_gib: float) -> dict[str, Any]:
    """Return the reports of :func:`zoos.probe.probe`, with a reason if its process died."""
    context = multiprocessing.get_context('fork')  # so that the packages are imported only once
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(stack, config, send, memory_gib))
    gc.collect()  # free unused process groups here, since their threads do not exist in the fork
    child.start()
    send.close()
    child.join(timeout_s)
    late = child.is_alive()
    if late:
        child.kill()
        child.join()
    facts = {}
    while receive.poll():
        try:
            part, found = receive.recv()
        except EOFError:
            break
        facts[part] = found
    reason = f'ended after {timeout_s:.0f} s' if late else f'the process ended with {child.exitcode}'
    for part in ('plain', 'gps'):
        if all(earlier['ok'] for earlier in facts.values()):
            facts.setdefault(part, dict(ok=False, reason=reason))
    return facts


def _child(stack: str, config: str, send: Any, memory_gib: float) -> None:
    """Probe without output and with limited memory."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_gib * 2**30),) * 2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    try:
        probe(stack, config, lambda part, facts: send.send((part, facts)))
    except BaseException as error:
        send.send(('driver', dict(ok=False, reason=describe_error(error))))
        raise
