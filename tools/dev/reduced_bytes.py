"""Count the bytes that two processes all-reduce in a training step of a config.

python tools/dev/reduced_bytes.py --data-root data/kvasir_seg CONFIG ...
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from mmgps.utils.requirements import require

require('mmseg')

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from mmgps.engine import set_work_dir  # noqa: E402
from mmgps.engine.configs.config import set_data_root  # noqa: E402

STEPS = 2

if not torch.cuda.is_available():
    # mmengine's launcher picks a CUDA device for every process, with any backend.
    torch.cuda.set_device = lambda device: None


class CountBytes(Hook):
    """Counts the bytes that DDP all-reduces and those that other code all-reduces, from the first step on."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.by_ddp = self.otherwise = 0
        self._reduce = dist.all_reduce

    def before_train_epoch(self, runner: Runner) -> None:
        runner.model.register_comm_hook(None, self._count)
        dist.all_reduce = self._counted

    def after_train_epoch(self, runner: Runner) -> None:
        dist.all_reduce = self._reduce

    def _count(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.by_ddp += bucket.buffer().nbytes
        future = self._reduce(bucket.buffer() / dist.get_world_size(), async_op=True).get_future()
        return future.then(lambda done: done.value()[0])

    def _counted(self, tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        self.otherwise += tensor.nbytes
        return self._reduce(tensor, *args, **options)


def short(path: str, data_root: str | None, folder: Path) -> Config:
    """Return the config for a few steps on the CPU, from random weights and without validation."""
    cfg = Config.fromfile(path)
    if data_root:
        set_data_root(cfg, data_root)
    set_work_dir(cfg, path, str(folder))
    cfg.launcher, cfg.env_cfg.dist_cfg.backend = 'pytorch', 'gloo'
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    cfg.model.backbone.init_cfg = None
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.train_dataloader.dataset.indices = 2 * 2 * STEPS
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.default_hooks = dict(checkpoint=None)
    cfg.log_level = 'ERROR'
    return cfg


def count(rank: int, path: str, data_root: str | None, folder: str) -> None:
    """Train as process ``rank`` of two; the first one writes the counts."""
    torch.set_num_threads(1)
    runner = Runner.from_cfg(short(path, data_root, Path(folder)))
    counter = CountBytes()
    runner.register_hook(counter)
    runner.train()
    if rank == 0:
        parts = runner.model.module.named_parameters()
        head = sum(value.nbytes for name, value in parts if not name.startswith('backbone.'))
        (Path(folder) / 'bytes').write_text(f'{counter.by_ddp // STEPS} {counter.otherwise // STEPS} {head}')
    dist.barrier()
    os._exit(0)  # gloo's threads may abort a process while it shuts down on a busy machine


def _start(rank: int, *args: Any) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1')
    count(rank, *args)


def reduced_bytes(path: str, data_root: str | None = None) -> tuple[int, int, int]:
    """Return the bytes that a process all-reduces per step, by DDP and otherwise, and the bytes of the head."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_start, (path, data_root, folder), nprocs=2)
        by_ddp, otherwise, head = map(int, (Path(folder) / 'bytes').read_text().split())
    return by_ddp, otherwise, head


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument('--data-root')
    return parser.parse_args()


if __name__ == '__main__':
    args = parse_args()
    os.environ.setdefault('MASTER_PORT', '29533')
    for config in args.configs:
        by_ddp, otherwise, head = reduced_bytes(config, args.data_root)
        total = by_ddp + otherwise
        print(f'{config}: {total:,} bytes per step, {head:,} for the head and {total - head:,} for the backbone')
        print(f'    {by_ddp:,} by DDP, {otherwise:,} for single connections')
