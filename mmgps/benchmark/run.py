"""Run the benchmark: select connections, time the methods in turns, and measure their memory."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmgps.engine import find_backbone
from mmgps.engine.selecting.selection_loss import TrainingLoss
from mmgps.tuning import GPS

from .measurements import Measurements, SelectionCost, bars_for, machine_header
from .memory import activation_bytes, optimizer_bytes, peak_bytes, reduced_bytes
from .recipes import LeftOutError, Recipe, connections_per_neuron, default_names, recipe_of
from .report import Report
from .setup import Rig, Setup
from .timing import Clock, interleaved

PEAK_STEPS = 2
ROUNDS = 3


@dataclass(frozen=True)
class Options:
    """Methods to measure and number of steps.

    Args:
        methods: Names of the methods; None for :func:`default_names` of ``ks``.
        ks: Connections per neuron.
        steps: Timed steps of each method.
        warmup: Untimed steps before them.
        batch_size: Batch size; None for the config's.
        selection_batches: Number of batches in the selection pass.
        peak: Measure peak memory; on the CPU this takes one process per method.
        selection_cost: Also time the selection.
        clock: Returns seconds; ``time.process_time`` ignores other programs on the CPU, but also all work on a GPU.
    """

    methods: Sequence[str] | None = None
    ks: Sequence[int] = (1, 2, 5, 20)
    steps: int = 20
    warmup: int = 2
    batch_size: int | None = None
    selection_batches: int = 20
    peak: bool = True
    selection_cost: bool = False
    clock: Clock = time.perf_counter


def run_benchmark(setup: Setup, options: Options, name: str) -> Report:
    """Select by gradients of the config's own data and weights, then measure every method.

    Args:
        setup: Config, device and seed.
        options: Methods and steps.
        name: Name of the config, for the header.

    Raises:
        ValueError: If a method is unknown.
    """
    names = list(options.methods or default_names(options.ks))
    ks = connections_per_neuron(names)
    _say(f'benchmark of {name}, weights: {setup.weights()}')
    header = {'config': name, **machine_header(setup.device), 'seed': setup.seed, 'weights': setup.weights()}
    model = setup.build()
    batches = setup.batches(options.selection_batches, options.batch_size)
    gradients: Mapping[str, Tensor] = {}
    if ks:
        _say(f'selection pass over {len(batches)} batches')
        gradients = setup.gradients(model, batches)
    backbone = find_backbone(model, setup.target)
    selections = {k: GPS(k).select(backbone, gradients) for k in ks}
    recipes = {method: recipe_of(method, selections) for method in names}
    rigs, left_out = build_rigs(setup, model, recipes)
    _say(f'timing {", ".join(rigs)}: {options.warmup} + {options.steps} rounds')
    steps = {method: rig.step for method, rig in rigs.items()}
    times = interleaved(steps, batches, options.steps, options.warmup, setup.device, setup.seed, options.clock)
    found = {method: measure_rig(rig, times[method], batches[0]) for method, rig in rigs.items()}
    rigs.clear()
    steps.clear()
    if options.peak:
        for method, own in found.items():
            _say(f'peak memory of {method}')
            found[method] = replace(own, peak_bytes=peak_bytes(setup, recipes[method], batches[:PEAK_STEPS]))
    cost = None
    if options.selection_cost and ks:
        cost = selection_cost(setup, model, batches, gradients, ks, options.clock)
    size = options.batch_size or setup.cfg.train_dataloader.batch_size
    header.update(batch_size=size, steps=options.steps, selection_batches=len(batches), clock=options.clock.__name__)
    return Report(header, found, times, bars_for(backbone), left_out, cost)


def build_rigs(setup: Setup, model: nn.Module, recipes: Mapping[str, Recipe]) -> tuple[dict[str, Rig], list[str]]:
    """Build a rig for each method on its own copy of ``model``, and a sentence for each method left out."""
    rigs, left_out = {}, []
    for name, recipe in recipes.items():
        try:
            rigs[name] = Rig(setup, copy.deepcopy(model), recipe)
        except LeftOutError as error:
            left_out.append(f'{name} is left out: {error}')
    return rigs, left_out


def measure_rig(rig: Rig, seconds: Sequence[float], batch: Any) -> Measurements:
    """Measure a rig that has taken steps, all but its peak memory."""
    return Measurements(
        step_s=median(seconds),
        saved_bytes=activation_bytes(rig, batch),
        peak_bytes=None,
        optimizer_bytes=optimizer_bytes(rig),
        reduced_bytes=reduced_bytes(rig),
        trained=rig.trained,
    )


def _say(message: str) -> None:
    print_log(message, logger='current')


def selection_cost(
    setup: Setup,
    model: nn.Module,
    batches: Sequence[Any],
    gradients: Mapping[str, Tensor],
    ks: Sequence[int],
    clock: Clock,
) -> SelectionCost:
    """Time the selection pass against a plain forward and backward pass over the same ``batches``, in turns.

    Args:
        setup: Setup that built ``model``.
        model: Its parameters stay as they are; BN statistics change.
        batches: Loaded batches, so that loading is not timed.
        gradients: Gradients of the selection pass.
        ks: Connections per neuron; each choice is timed.
        clock: Returns seconds.
    """
    loss = TrainingLoss(model, setup.optimize(list(model.parameters())))

    def plain(own: Sequence[Any]) -> None:
        for batch in own:
            loss(batch).backward()
            model.zero_grad()

    steps = {'pass': lambda own: setup.gradients(model, own), 'plain': plain}
    times = interleaved(steps, [batches], ROUNDS, 1, setup.device, setup.seed, clock)
    backbone, choices = find_backbone(model, setup.target), {}
    for k in ks:
        began = clock()
        GPS(k).select(backbone, gradients)  # ends on the CPU, so it waits for CUDA
        choices[str(k)] = clock() - began
    return SelectionCost(len(batches), median(times['pass']), median(times['plain']), choices)
