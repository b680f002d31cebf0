"""Size of deltas and the time to switch between two of them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmgps.delta import BaseFingerprint, Delta, DeltaBank, extract, save_delta
from mmgps.engine import METHOD_NAMES, build_base, build_method, find_backbone
from mmgps.tuning import TuningMethod, unload
from mmgps.utils.text import text_table

from .measurements import machine_header
from .timing import Clock, timed

MEGA = 1e6


@dataclass(frozen=True)
class DeltaCost:
    """Size and times of the deltas of one method.

    Args:
        method: Short name.
        file_bytes: Bytes of the delta file.
        head_bytes: Bytes of the parameters outside the backbone within the file.
        extract_s: Seconds to extract a delta from a trained network.
        add_s: Seconds to read, check and register a file.
        switch_s: Seconds of each timed switch between the two deltas.
    """

    method: str
    file_bytes: int
    head_bytes: int
    extract_s: float
    add_s: float
    switch_s: tuple[float, ...]


def measure_deltas(
    cfg: Config,
    methods: Sequence[str],
    target: str = 'backbone',
    switches: int = 20,
    clock: Clock = time.perf_counter,
    device: str = 'cpu',
) -> list[DeltaCost]:
    """Make two random deltas of each method on the base of ``cfg``, without training, and time them.

    Args:
        cfg: Any config of an mm library.
        methods: Short names of methods that select without gradients; ``gps-random`` is as large as ``gps``.
        target: Path of the backbone within the model.
        switches: Number of timed switches, after two untimed ones.
        clock: Returns seconds; ``time.process_time`` on a busy machine.
        device: Device of the network.
    """
    model = build_base(cfg, target=target).to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        return [_measure(model, target, name, switches, Path(folder), clock, device) for name in methods]


def format_deltas(costs: Sequence[DeltaCost]) -> str:
    """Format the costs as the table that the tool prints."""
    header = machine_header('cpu')
    title = f'{header["machine"]}, threads {header["threads"]}, load {header["load"]}, commit {header["commit"]}'
    rows = [
        [
            cost.method,
            f'{cost.file_bytes / MEGA:.3f}',
            f'{cost.head_bytes / MEGA:.3f}',
            f'{cost.extract_s:.2f}',
            f'{1e3 * cost.add_s:.1f}',
            f'{1e3 * statistics.median(cost.switch_s):.1f}',
            f'{1e3 * max(cost.switch_s):.1f}',
        ]
        for cost in costs
    ]
    table = text_table(['method', 'MB', 'of it head', 'extract, s', 'add, ms', 'switch, ms', 'slowest'], rows)
    return f'{title}\n{table}'


def _measure(
    model: nn.Module, target: str, name: str, switches: int, folder: Path, clock: Clock, device: str
) -> DeltaCost:
    method = build_method(METHOD_NAMES[name])
    deltas, seconds = zip(*(made_up_delta(model, target, method, seed, clock) for seed in (1, 2)), strict=True)
    paths = [folder / f'{name}-{number}' for number in (1, 2)]
    for delta, path in zip(deltas, paths, strict=True):
        save_delta(delta, path)
    bank = DeltaBank(model, target)
    add_s = [timed(partial(bank.add, path.name), path, device, clock) for path in paths]
    switch_s = [timed(bank.switch, paths[at % 2].name, device, clock) for at in range(2 + switches)]
    bank.switch(None)
    head = sum(value.nbytes for value in deltas[0].head().values())
    return DeltaCost(name, paths[0].stat().st_size, head, min(seconds), min(add_s), tuple(switch_s[2:]))


def made_up_delta(
    model: nn.Module, target: str, method: TuningMethod, seed: int, clock: Clock = time.perf_counter
) -> tuple[Delta, float]:
    """Make a delta with random numbers for everything that ``method`` trains, and time its extraction.

    ``model`` keeps its values.

    Returns:
        The delta, and the seconds of its extraction.
    """
    backbone = find_backbone(model, target)
    selection = method.select(backbone, None)
    method.inject_selected(backbone, selection)
    base, before = BaseFingerprint.of(backbone, selection), {n: v.clone() for n, v in model.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    named = dict(backbone.named_parameters())
    with torch.no_grad():
        for parameter, connections in selection.resolve(backbone):
            mask = connections.mask(parameter.neurons).to(parameter.value.device)
            parameter.value[mask] += torch.randn(int(mask.sum()), generator=generator).to(parameter.value)
        for name in selection.whole:
            named[name].add_(torch.randn(named[name].shape, generator=generator).to(named[name]))
    found: list[Delta] = []
    seconds = timed(lambda _: found.append(extract(model, selection, base, target)), None, 'cpu', clock)
    model.load_state_dict(before)
    unload(backbone)
    return found[0], seconds
