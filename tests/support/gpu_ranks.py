"""Runs of several processes on one GPU: python gpu_ranks.py RANK FOLDER, with the environment of ``torchrun``."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmgps.utils.requirements import require

require('mmseg')

from ddp_runs import KINDS, STEPS, Net  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402
from training_pair import prepare, random_selection  # noqa: E402


def images(step: int) -> Tensor:
    return torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step))


def trained(kind: str, norm: type[nn.Module], rank: int, world: int, device: str) -> dict[str, Tensor]:
    """Return the state after a few steps on four images each, split among the processes."""
    torch.manual_seed(0)
    network = Net(norm).double().to(device)
    training, optimizer = prepare(KINDS[kind], network, random_selection(network, 2), 'sgd')
    parallel = DistributedDataParallel(
        network, device_ids=None if device == 'cpu' else [torch.device(device).index or 0]
    )
    for step in range(STEPS):
        optimizer.zero_grad()
        mine = images(step).chunk(world)[rank].to(device)
        (parallel(mine, True) - 0.3).square().mean().backward()
        training.before_step()
        optimizer.step()
        training.after_step()
    return {name: value.cpu() for name, value in network.state_dict().items()}


def sharded(folder: Path, base: Path, backend: str) -> dict[str, Any]:
    """Return the final states of a tiny run under ``GPSFSDPStrategy`` and, twice, without it."""
    from fsdp_runs import config

    from mmgps.engine import build_runner
    from mmgps.engine.fsdp.shards import gathered_state
    from mmgps.engine.fsdp.strategy import has_fsdp2

    found: dict[str, Any] = {}
    for name, fsdp in {'sharded': has_fsdp2(), 'plain': False, 'again': False}.items():
        cfg = config(folder / name, base, fsdp)
        cfg.env_cfg = dict(dist_cfg=dict(backend=backend))
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'Watch']
        runner = build_runner(cfg)
        runner.train()
        found[name] = {
            key: value.cpu()
            for key, value in gathered_state(getattr(runner.model, 'module', runner.model), True).items()
        }
    return found


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    world, device, backend = int(os.environ['WORLD_SIZE']), os.environ['MMGPS_TEST_DEVICE'], os.environ['BACKEND']
    if device != 'cpu':
        torch.cuda.set_device(0)  # all processes share one GPU
        device = 'cuda:0'
    store = dist.FileStore(str(folder / 'store'), world)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    # DDP refuses SyncBatchNorm on the CPU
    norm = nn.Identity if device == 'cpu' else nn.SyncBatchNorm
    found: dict[str, Any] = {kind: trained(kind, norm, rank, world, device) for kind in KINDS}
    if world == 1:
        from tiny import tiny_config

        from mmgps.engine import build_plain

        base = folder / 'base.pth'
        torch.manual_seed(7)
        torch.save(dict(state_dict=build_plain(tiny_config(folder)).state_dict()), base)
        found.update(sharded(folder, base, backend))
    torch.save(found, folder / f'found-{rank}.pth')
    dist.barrier()
    os._exit(0)  # gloo's threads may abort a process while it shuts down on a busy machine


if __name__ == '__main__':
    main(int(sys.argv[1]), Path(sys.argv[2]))
