"""Kill a small GPS run at random moments, resume it as a user does, and compare its end with that of a run left alone.

PYTHONPATH=tools/dev:tests/support python -m faults --kills 30 --seed 0 --out work_dirs/faults
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import tiny

from .evidence import differing, ending, inspect
from .life import Strike, live

ITERATIONS = 16


def write_config(path: Path) -> Path:
    """A tiny run that selects, validates and writes checkpoints as often as can be, and keeps the last one only."""
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
    """Every second one at a moment of the whole time, the others at a point, all kinds alike."""
    while True:
        yield Strike(seconds=rng.uniform(0, seconds))
        kind = rng.choice(sorted(points))
        yield Strike(kind=kind, number=rng.randint(1, points[kind]))


def drive(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kill ``kills`` times; a run is resumed until it ends, then another one starts.

    Returns:
        What was struck, and how often.

    Raises:
        AssertionError: If a file is not whole after a kill, or a run does not end as it should.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = write_config(folder / 'config.py')
    alone = live(config, folder / 'alone')
    expected = ending(folder / 'alone')
    print(f'left alone: {alone.seconds:.1f} s, {sum(alone.passed.values())} points of {len(alone.passed)} kinds')
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
            print(f'run {runs}, killed {strike}: goes on from ' + ('the start' if at is None else f'iteration {at}'))
        assert inspect(work_dir) == ITERATIONS
        bad = differing(ending(work_dir), expected)
        assert not bad, f'run {runs} does not end as the one left alone: {bad}'
    print(f'\n{sum(done.values())} kills of {runs} runs; all {runs} end with the bits of the one left alone')
    for kind, count in done.most_common():
        print(f'{count:4}  {kind}')
    return done


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/faults'))
    args = parser.parse_args()
    drive(args.kills, args.seed, args.out.resolve())
