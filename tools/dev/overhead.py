"""Measure the time that GPS costs a run outside its steps, and the sizes of its files.

python tools/dev/overhead.py CONFIG --data-root data/kvasir_seg --iterations 40
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from mmgps.utils.requirements import require

require('mmseg')

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from mmgps.delta import save_delta  # noqa: E402
from mmgps.engine.configs.config import set_data_root  # noqa: E402
from mmgps.engine.deltas.delta_hook import DeltaHook  # noqa: E402

#: Hook methods that a run calls in or between its iterations.
POINTS = ('before_train_iter', 'after_train_iter', 'before_save_checkpoint', 'after_train_epoch')


class Stopwatch:
    """Seconds and calls of the wrapped methods, by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)

    def around(self, owner: Any, method: str, name: str) -> None:
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **options)
            finally:
                self.seconds[name] += time.perf_counter() - began
                self.calls[name] += 1

        vars(owner)[method] = timed


def short(path: str, data_root: str | None, iterations: int, work_dir: str) -> Config:
    """Return the config for one short epoch without validation, with deltas."""
    cfg = Config.fromfile(path)
    if data_root:
        set_data_root(cfg, data_root)
    cfg.work_dir = work_dir
    cfg.train_dataloader.dataset.indices = iterations * cfg.train_dataloader.batch_size
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.default_hooks.pop('overlays', None)
    cfg.custom_hooks[0].num_batches = 2
    cfg.custom_hooks.append(dict(type='mmgps.DeltaHook', by_epoch=True))
    return cfg


def measure(cfg: Config) -> None:
    """Train, and print the table."""
    runner, watch = Runner.from_cfg(cfg), Stopwatch()
    for hook in runner.hooks:
        kind = type(hook)
        for point in POINTS:
            if kind.__module__.startswith('mmgps') and point in vars(kind):
                watch.around(hook, point, f'{kind.__name__}.{point}')
    watch.around(runner, 'save_checkpoint', 'saving a checkpoint, including mmengine')
    runner.train()
    times, _ = runner.message_hub.get_scalar('train/time').data
    total = float(times.sum())
    print(f'{len(times)} iterations of {total / len(times):.3f} s, {total:.1f} s')
    for name, seconds in sorted(watch.seconds.items(), key=lambda item: -item[1]):
        print(f'{seconds * 1e3:10.2f} ms {seconds / total:9.4%} {watch.calls[name]:5} calls  {name}')
    print_sizes(runner)


def print_sizes(runner: Runner) -> None:
    """Print the sizes of a checkpoint, a thin checkpoint, a delta and the selection."""
    folder = Path(runner.work_dir)
    [deltas] = [hook for hook in runner.hooks if isinstance(hook, DeltaHook)]
    meta = dict(epoch=runner.epoch, iter=runner.iter)
    for thin in (False, True):
        deltas.thin_checkpoints = thin
        for optimizer in (True, False):
            runner.save_checkpoint(str(folder), 'size.pth', save_optimizer=optimizer, meta=dict(meta))
            size = (folder / 'size.pth').stat().st_size
            print(f'{size:12,} bytes  checkpoint, {"thin, " * thin}optimizer {"in" if optimizer else "ex"}cluded')
    save_delta(deltas.delta(runner, runner.iter, runner.epoch, {}), folder / 'size.safetensors')
    print(f'{(folder / "size.safetensors").stat().st_size:12,} bytes  delta, with the head')
    print(f'{(folder / "selection.safetensors").stat().st_size:12,} bytes  selection')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--data-root')
    parser.add_argument('--iterations', type=int, default=40)
    return parser.parse_args()


if __name__ == '__main__':
    args = parse_args()
    with tempfile.TemporaryDirectory() as work_dir:
        measure(short(args.config, args.data_root, args.iterations, work_dir))
