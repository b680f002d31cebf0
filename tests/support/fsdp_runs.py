"""Training with and without FSDP, as a script for :func:`ranks.run_ranks`."""

import copy
import gc
import os
import runpy
import sys
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn

from mmgps.utils.requirements import require

require('mmseg')

import ranks  # noqa: E402, F401
from architectures import BUILDERS, OF_MMPRETRAIN, build  # noqa: E402
from tiny import PIPELINE, Stop, tiny_config, tiny_model  # noqa: E402
from tuned import Tuned  # noqa: E402

from mmgps.engine import build_method, build_plain, build_runner, tune_config  # noqa: E402
from mmgps.engine.fsdp.shards import gathered_state, held_bytes, shard_frozen  # noqa: E402
from mmgps.engine.fsdp.strategy import has_fsdp2  # noqa: E402, F401
from mmgps.sparse.weight import is_sharded  # noqa: E402

#: Options of each method for networks 8 to 16 wide.
METHODS: dict[str, dict[str, Any]] = {
    'gps': dict(k=2),
    'bias': {},
    'linear': {},
    'lora': dict(rank=2),
    'adapter': dict(bottleneck=2),
    'vpt-deep': dict(tokens=3),
    'ssf': {},
    'spt-lora': dict(budget=0.3, rank=2),
}
#: Architectures of the installed packages; the last one in half precision.
NETWORKS = (*(k for k in BUILDERS if k not in OF_MMPRETRAIN or find_spec('mmpretrain')), 'vit-bf16')
ITERATIONS = 6
ROOT = Path(__file__).resolve().parents[2]


@HOOKS.register_module(force=True)
class ShardWatch(Hook):
    """Record the bytes that the process holds between steps, and the scores."""

    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        self.bytes = held_bytes(runner.model)

    def before_val_epoch(self, runner) -> None:
        np.random.seed(0)  # noqa: NPY002

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.metrics = {name: float(value) for name, value in metrics.items()}
        self.bytes_after = held_bytes(runner.model)
        self.whole = alive(runner.model) if self.bytes[1] else []


def alive(model: nn.Module) -> list[str]:
    """Return the names of sharded weights with an unsharded copy in memory."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if isinstance(found, Tensor) and not is_sharded(found)]
    tensors = [found for found in tensors if found.untyped_storage().nbytes() >= found.nbytes > 0]
    names = []
    for name, value in model.named_parameters():
        if is_sharded(value) and value.dim() > 1:
            whole = value.full_tensor()
            names += [name for found in tensors if found.shape == whole.shape and torch.equal(found, whole)]
    return names


def network(kind: str, rank: int, world: int, sharded: bool) -> dict[str, Tensor]:
    """Return the state after three steps of GPS by processes with different pictures."""
    tuned = Tuned(build(kind.removesuffix('-bf16')), build_method(dict(type='mmgps.GPS', k=2)))
    tuned.model.backbone.eval()
    held = [value for group in tuned.wrapper.param_groups for value in group['params']]
    inside = {id(value) for value in tuned.model.parameters()}
    tuned.wrapper.averaged = [value for value in held if id(value) in inside]
    if sharded:
        shard_frozen(tuned.model, tuned.wrapper.averaged, torch.device('cpu'))
        tuned.training.follow()
    with torch.autocast('cpu', torch.bfloat16, enabled=kind.endswith('bf16')):
        tuned.train(range(rank, 3 * world, world))
    return gathered_state(tuned.model, True)


def networks(kind: str, rank: int, world: int) -> list[dict[str, Tensor]]:
    """Return the states after sharded training, after unsharded training, and before training."""
    base = {f'backbone.{name}': value for name, value in build(kind.removesuffix('-bf16')).state_dict().items()}
    return [*(network(kind, rank, world, sharded) for sharded in (True, False)), base]


def config(work_dir: Path, base: Path, fsdp: bool, **changes: Any):
    cfg = tiny_config(work_dir, **{'max_iters': ITERATIONS, **changes})
    cfg.load_from = str(base)
    cfg.launcher = 'pytorch'
    cfg.env_cfg = dict(dist_cfg=dict(backend='gloo'))
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    cfg.custom_hooks.append(dict(type='ShardWatch'))
    if fsdp:
        cfg.update(runner_type='FlexibleRunner', strategy=dict(type='mmgps.GPSFSDPStrategy'))
    return cfg


def validating(cfg):
    cfg.val_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='TinyPictures', count=6, pipeline=PIPELINE),
    )
    cfg.update(val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']), val_cfg=dict(type='ValLoop'))
    cfg.train_cfg.val_interval = 3
    return cfg


def trained(cfg) -> dict[str, Any]:
    runner = build_runner(cfg)
    runner.train()
    [watch] = [hook for hook in runner.hooks if isinstance(hook, ShardWatch)]
    model = getattr(runner.model, 'module', runner.model)
    return dict(vars(watch), state=gathered_state(model, True))


def interrupted(folder: Path, base: Path, fsdp: bool, **changes: Any) -> dict[str, Any]:
    """Train a run that fails between two checkpoints and resumes from the first one."""
    cfg = config(folder, base, fsdp, **changes)
    cut = copy.deepcopy(cfg)
    cut.custom_hooks.append(dict(type='StopAt', at=5))
    with suppress(Stop):
        build_runner(cut).train()
    dist.barrier()
    cfg.update(resume=True, load_from=None, experiment_name=f'{cfg.experiment_name}-resumed')
    return trained(cfg)


def tuned_config(folder: Path, base: Path, fsdp: bool, method: str):
    cfg = config(folder, base, fsdp, max_iters=2, custom_hooks=[])
    return tune_config(cfg, method, METHODS[method])


def flexible(folder: Path, base: Path):
    """Return the config of the run without FSDP in a ``FlexibleRunner``."""
    cfg = validating(config(folder, base, False))
    cfg.update(runner_type='FlexibleRunner', strategy=dict(type='DDPStrategy', model_wrapper=cfg.model_wrapper_cfg))
    return cfg


def through_tool(folder: Path, base: Path, rank: int) -> None:
    """Run GPS under FSDP by ``tools/train.py``."""
    cfg = config(folder / 'tool', base, True, max_iters=2, custom_hooks=[dict(type='mmgps.ExactResumeHook')])
    if rank == 0:
        cfg.dump(folder / 'tool.py')
    dist.barrier()
    sys.argv = ['tools/train.py', str(folder / 'tool.py'), '--launcher', 'pytorch', '--work-dir', str(folder / 'tool')]
    sys.argv += ['--tune', 'gps', '--tune-options', 'k=2']
    runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / 'store'), world)
    dist.init_process_group('gloo', store=store, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    base = folder / f'base-{rank}.pth'
    torch.manual_seed(7)
    torch.save(dict(state_dict=build_plain(tiny_config(folder)).state_dict()), base)
    found: dict[str, Any] = {
        'sharded': trained(validating(config(folder / 'sharded', base, True))),
        'resumed': interrupted(folder / 'cut', base, True),
    }
    if world == 2:
        model = tiny_model(with_cp=True)
        accumulated = dict(model=model, optim_wrapper=dict(tiny_config(folder).optim_wrapper, accumulative_counts=2))
        found['plain'] = trained(validating(config(folder / 'plain', base, False)))
        found['flexible'] = trained(flexible(folder / 'flexible', base))
        found['accumulated'] = [trained(config(folder / f'acc-{f}', base, f, **accumulated)) for f in (True, False)]
        of_three = dict(optim_wrapper=dict(tiny_config(folder).optim_wrapper, accumulative_counts=3))
        found['within an accumulation'] = {
            f: [
                interrupted(folder / f'within-{f}', base, f, **of_three),
                trained(config(folder / f'of-3-{f}', base, f, **of_three)),
            ]
            for f in (True, False)
        }
        found['methods'] = {
            method: [trained(tuned_config(folder / f'{method}-{f}', base, f, method)) for f in (True, False)]
            for method in METHODS
        }
        found['networks'] = {kind: networks(kind, rank, world) for kind in NETWORKS}
        through_tool(folder, base, rank)
    torch.save(found, folder / f'found-{rank}.pth')
    dist.barrier()
    os._exit(0)  # gloo's threads may abort a process while it shuts down on a busy machine


if __name__ == '__main__':
    main(int(sys.argv[1]), int(os.environ['WORLD_SIZE']), Path(sys.argv[2]))
