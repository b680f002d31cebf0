"""Kill a small GPS run at random moments, resume it, and compare its final state with an uninterrupted run.

PYTHONPATH=tools/dev:tests/support python -m faults --kills 30 --seed 0 --out work_dirs/faults
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiny
import torch

from mmgps.engine.safe_loading import load_plain
from mmgps.selection import load_selection

from .life import Strike, live

ITERATIONS = 16


def write_config(path: Path) -> Path:
    """Write the config of a tiny run that validates and saves often, and keeps only the last checkpoint."""
    cfg = tiny.tiny_config(path.parent / 'unused', max_iters=ITERATIONS)
    cfg.train_dataloader.dataset.count = 48
    cfg.train_cfg.val_interval = 4
    data = dict(type='TinyPictures', count=2, pipeline=[tiny.PIPELINE[0], tiny.PIPELINE[2]])
    cfg.val_dataloader = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data)
    cfg.val_cfg, cfg.val_evaluator = dict(type='ValLoop'), dict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best='mIoU', rule='greater')
    cfg.param_scheduler[0].end = ITERATIONS
    cfg.custom_imports = dict(imports=['tiny'])
    cfg.dump(path)
    return path


def strikes(rng: random.Random, seconds: float, points: Mapping[str, int]):
    """Alternate between strikes at a random moment and strikes at a point of a random kind."""
    while True:
        yield Strike(seconds=rng.uniform(0, seconds))
        kind = rng.choice(sorted(points))
        yield Strike(kind=kind, number=rng.randint(1, points[kind]))


def drive(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kill runs ``kills`` times. Each run resumes until it ends, then another one starts.

    Returns:
        Number of kills by kind of strike.

    Raises:
        AssertionError: If a file is damaged after a kill, or the final state of a run is wrong.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = write_config(folder / 'config.py')
    alone = live(config, folder / 'alone')
    expected = ending(folder / 'alone')
    print(f'uninterrupted: {alone.seconds:.1f} s, {sum(alone.passed.values())} points of {len(alone.passed)} kinds')
    plan, done, runs = strikes(random.Random(seed), alone.seconds, alone.passed), Counter(), 0
    while sum(done.values()) < kills:
        runs += 1
        work_dir = folder / f'run{runs}'
        while True:
            strike = next(plan) if sum(done.values()) < kills else Strike()
            if not live(config, work_dir, strike).killed:
                break
            at = inspect(work_dir)
            done[strike.kind or 'at a moment'] += 1
            print(f'run {runs}, killed {strike}: resumes from ' + ('the start' if at is None else f'iteration {at}'))
        assert inspect(work_dir) == ITERATIONS
        bad = differing(ending(work_dir), expected)
        assert not bad, f'run {runs} ends differently from the uninterrupted one: {bad}'
    print(f'\n{sum(done.values())} kills of {runs} runs; all {runs} end with the bits of the uninterrupted one')
    for kind, count in done.most_common():
        print(f'{count:4}  {kind}')
    return done


def inspect(work_dir: Path) -> int | None:
    """Check that all finished files of a run are intact.

    Returns:
        The iteration to resume from; None to start from the beginning.
    """
    if (work_dir / 'selection.safetensors').exists():
        load_selection(work_dir / 'selection.safetensors')
    iterations = {path: load_plain(path)['meta']['iter'] for path in work_dir.glob('[!.]*.pth')}
    note = work_dir / 'last_checkpoint'
    if not note.exists():
        return None
    named = Path(note.read_text())
    assert named in iterations, f'{note} names {named}; found {sorted(iterations)}'
    return iterations[named]


def ending(work_dir: Path) -> dict[str, Any]:
    """Return the model, optimizer, schedulers and selection in the last checkpoint."""
    checkpoint = load_plain((work_dir / 'last_checkpoint').read_text())
    held = {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers', 'mmgps_selection')}
    return {**held, 'iter': checkpoint['meta']['iter'], 'seed': checkpoint['meta']['seed']}


def differing(found: Any, expected: Any, name: str = '') -> list[str]:
    """Return the paths at which two final states differ in any bit."""
    if isinstance(expected, torch.Tensor):
        same = isinstance(found, torch.Tensor) and found.dtype == expected.dtype and torch.equal(found, expected)
        return [] if same else [name]
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return [name]
        return [bad for key in expected for bad in differing(found[key], expected[key], f'{name}/{key}')]
    if isinstance(expected, list | tuple):
        if len(found) != len(expected):
            return [name]
        return [bad for at, part in enumerate(expected) for bad in differing(found[at], part, f'{name}/{at}')]
    return [] if found == expected else [name]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/faults'))
    args = parser.parse_args()
    drive(args.kills, args.seed, args.out.resolve())
