"""Train one config without mmgps and with it, and compare the two results."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.config.config
import torch
import yapf.yapflib.yapf_api
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from mmgps.selection import Role, Selection, describe, unpack_selection

from .architectures import ALIASES, zoo
from .pictures import draw_pictures
from .shrink import shrink

SIDES = (128, None)
SLOWER = (1, 100)
TRAIN = Path(__file__).resolve().parents[3] / 'tools/train.py'

# mmengine formats the config at every start and for every checkpoint, which takes longer than a tiny run.
for module in (yapf.yapflib.yapf_api, mmengine.config.config):
    module.FormatCode = lambda text, **style: (text, True)


class BrokenInvariantError(AssertionError):
    """Training with mmgps broke an invariant."""


def probe(stack: str, config: str, report: Callable[[str, dict[str, Any]], None]) -> None:
    """Train ``config`` of the zoo of ``stack`` both ways.

    Args:
        stack: Package of the zoo.
        config: Path within the zoo.
        report: Called with ``'plain'`` and then ``'gps'``, with ``ok``, ``seconds``, and ``reason`` after a failure.
    """
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder))
        os.chdir(folder)
        plain, runner, cfg = _timed(lambda: _smallest_run(stack, config, folder))
        report('plain', plain)
        if plain['ok']:
            tuned, *_ = _timed(lambda: _tuned(runner, cfg, Path(folder)))
            report('gps', tuned)


def _timed(work: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    began = time.perf_counter()
    try:
        facts, *rest = work()
        facts = dict(ok=True, **facts)
    except Exception as error:
        facts, rest = dict(ok=False, reason=describe_error(error)), [None, None]
    return dict(**facts, seconds=round(time.perf_counter() - began, 1)), *rest


def describe_error(error: BaseException) -> str:
    """Format type and message of ``error`` and its causes in one line of at most 500 characters."""
    texts = []
    current: BaseException | None = error
    while current is not None:
        texts.append(f'{type(current).__name__}: {" ".join(str(current).split())}')
        current = current.__cause__
    return ' <- '.join(texts)[:500]


def _smallest_run(stack: str, config: str, folder: str) -> tuple[dict[str, Any], Runner, Config]:
    """Train without mmgps at the smallest size that the architecture accepts."""
    for side in SIDES:
        try:
            slower, runner, cfg = _finite_run(stack, config, folder, side)
        except Exception:
            if side is SIDES[-1]:
                raise
        else:
            return dict(side=side or 'its own', slower=slower), runner, cfg
    raise AssertionError('SIDES is empty')


def _finite_run(stack: str, config: str, folder: str, side: int | None) -> tuple[int, Runner, Config]:
    """Train at the rate of the config, or at a hundredth of it if two iterations from random weights diverge."""
    for slower in SLOWER:
        cfg = shrink(Config.fromfile(zoo(stack) / config), stack, folder, side)
        cfg.experiment_name = f'plain-{side}-{slower}'
        if slower != 1:
            cfg.optim_wrapper.optimizer.lr /= slower
        runner = Runner.from_cfg(cfg.copy())
        runner.train()
        if all(torch.isfinite(value).all() for value in runner.model.state_dict().values()):
            return slower, runner, cfg
    raise ArithmeticError(f'two iterations diverge without mmgps, even at the rate divided by {SLOWER[-1]}')


def _tuned(runner: Runner, cfg: Config, folder: Path) -> tuple[dict[str, Any]]:
    """Train by ``tools/train.py --tune gps`` from the final weights of the plain run."""
    base = {name: value.clone() for name, value in runner.model.state_dict().items()}
    torch.save(dict(state_dict=base), folder / 'base.pth')
    cfg.load_from, cfg.experiment_name = str(folder / 'base.pth'), 'gps'
    cfg.dump(folder / 'small.py')
    target = target_of(runner.model)
    named = [] if target == 'backbone' else ['--tune-target', target]
    sys.argv = ['train.py', 'small.py', '--work-dir', 'gps', '--tune', 'gps', *named]
    runpy.run_path(str(TRAIN), run_name='__main__')
    checkpoint = torch.load((folder / 'gps/last_checkpoint').read_text().strip(), weights_only=True)
    selection = unpack_selection(checkpoint['mmgps_selection'])
    averaged = checkpoint.get('ema_state_dict')  # with EMA, mmengine swaps the names of averages and weights
    if averaged is not None:
        check(runner.model, base, checkpoint['state_dict'], selection)
    state = checkpoint['state_dict'] if averaged is None else _of_model(averaged)
    facts = check(runner.model, base, state, selection)
    if not facts['moved']:
        raise BrokenInvariantError('no chosen connection moved')
    return (facts,)


def target_of(model: nn.Module) -> str:
    """Return the path of the backbone under any of its names: the shortest one with trained parameters."""
    names = ('backbone', *ALIASES['backbone'])
    found = [
        name
        for name, part in model.named_modules()
        if name.split('.')[-1] in names and any(value.requires_grad for value in part.parameters())
    ]
    return min(found, key=lambda name: name.count('.'), default='backbone')


def _of_model(averaged: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix('module.'): value for name, value in averaged.items() if name.startswith('module.')}


def check(model: nn.Module, base: dict[str, Tensor], state: dict[str, Tensor], selection: Selection) -> dict[str, Any]:
    """Check the invariants, and count the connections.

    Args:
        model: Model of the base, built without mmgps.
        base: Weights before training.
        state: Weights after training by ``selection``.
        selection: The trained selection.

    Raises:
        BrokenInvariantError: Names the frozen parameter that moved, or the missing or additional names.
    """
    if state.keys() != base.keys():
        raise BrokenInvariantError(f'names differ: {sorted(state.keys() ^ base.keys())[:5]}')
    moved, unknown = 0, set()
    target = target_of(model)
    for name, entry in describe(model.get_submodule(target)).items():
        chosen = selection.connections.get(name)
        if f'{target}.{name}' not in base and chosen is None and name not in selection.whole:
            continue  # mmpretrain's LoRAModel omits frozen parameters from its state
        changed = base[f'{target}.{name}'].ne(state[f'{target}.{name}'])
        free = chosen.mask(entry.neurons) if chosen else torch.full_like(changed, name in selection.whole)
        if bool((changed & ~free).any()):
            raise BrokenInvariantError(f'{target}.{name} is frozen and moved')
        moved += int(changed.sum()) if chosen else 0
        if entry.role is Role.OTHER:
            unknown.add(type(entry.owner).__name__)
    if model.load_state_dict(state, strict=False) != model.load_state_dict(base, strict=False):
        raise BrokenInvariantError('the state dict does not load like that of the base')
    return dict(connections=len(selection), moved=moved, unknown=sorted(unknown), target=target)
