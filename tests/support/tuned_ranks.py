"""``mmgps.tune`` by two processes under DDP and FSDP2; the processes save what they hold in the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from small_model import SmallModel, state
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import mmgps
from mmgps.selection import RandomScore
from mmgps.sparse import CompactTraining, MaskedTraining
from mmgps.tuning import GPS

STEPS = 3


def batch(step: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(10 * step + rank)
    return torch.randn(8, 8, dtype=torch.float64, generator=generator)


class Model(SmallModel):
    """Returns a tensor, in which DDP finds what took part."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).loss


def base() -> Model:
    torch.manual_seed(0)
    return Model().double()


def tune(model: nn.Module, training: type = CompactTraining, method: str = 'gps') -> mmgps.Tuned:
    batches = [batch(0, rank) for rank in range(2)]  # the same on each process
    return mmgps.tune(model, method, batches=batches, loss=model, training=training)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, parts: int = 1) -> None:
    for step in range(STEPS):
        for x in batch(step, rank).chunk(parts):
            (model(x) / parts).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()


def ddp(rank: int, training: type = CompactTraining, parts: int = 1, **options: bool) -> dict[str, object]:
    model = base()
    before = state(model)
    tuned = tune(model, training)
    wrapped = DistributedDataParallel(model, **options)
    train(wrapped, adamw(wrapped), rank, parts)
    return dict(before=before, state=state(model), report=str(tuned))


def wrapped_before(rank: int) -> str:
    """The error of a model that DDP wrapped before it was tuned."""
    model = base()
    wrapped = DistributedDataParallel(model)
    tune(model)
    return error_of(lambda: train(wrapped, adamw(model), rank))


def wrapped_late(model: nn.Module, rank: int) -> str:
    """The error of a model that was tuned before there was a process group."""
    wrapped = DistributedDataParallel(model)
    return error_of(lambda: train(wrapped, adamw(wrapped), rank))


def sharded(method: str, **options: object) -> str:
    """The error of a model that FSDP2 cuts up after it was tuned."""
    from torch.distributed.fsdp import fully_shard

    model = base()
    tuned = tune(model, method=method)
    ignored = {'ignored_params': set(tuned.parameters())} if options.get('ignored') else {}
    fully_shard(model.backbone, **ignored)
    fully_shard(model, **ignored)
    return error_of(lambda: train(model, adamw(model), 0))


def sharded_before() -> str:
    from torch.distributed.fsdp import fully_shard

    model = base()
    fully_shard(model)
    return error_of(lambda: tune(model))


def own_batches(rank: int) -> dict[str, object]:
    """Each process chooses by samples of its own, and trains what both chose."""
    model = base()
    tuned = mmgps.tune(model, 'gps', batches=[batch(0, rank)], loss=model)
    wrapped = DistributedDataParallel(model)
    train(wrapped, adamw(wrapped), rank)
    chosen = {name: item.positions for name, item in tuned.selection.connections.items()}
    return dict(chosen=chosen, state=state(model))


def random_choice(rank: int) -> dict[str, Tensor]:
    model = base()
    tuned = mmgps.tune(model, GPS(score=RandomScore(seed=rank)))
    return {name: item.positions for name, item in tuned.selection.connections.items()}


def failing(rank: int) -> str:
    """The error where the samples of one process are broken."""
    x = torch.full((2, 8), float('nan') if rank else 1.0, dtype=torch.float64)
    model = base()
    return error_of(lambda: mmgps.tune(model, 'gps', batches=[x], loss=model))


def other_selection(rank: int) -> str:
    model = base()
    selection = GPS(k=rank + 1, score=RandomScore()).select(model.backbone)
    return error_of(lambda: mmgps.tune(model, 'gps', selection=selection))


def error_of(action: Callable[[], object]) -> str:
    try:
        action()
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return 'no error'


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    early = base()
    tune(early)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    cases = {
        'compact': lambda: ddp(rank),
        'masked': lambda: ddp(rank, MaskedTraining),
        'accumulated': lambda: ddp(rank, parts=2),
        'static': lambda: ddp(rank, static_graph=True),
        'unused': lambda: ddp(rank, find_unused_parameters=True),
        'views': lambda: ddp(rank, gradient_as_bucket_view=True),
        'before': lambda: wrapped_before(rank),
        'early': lambda: wrapped_late(early, rank),
        'sharded': lambda: sharded('gps'),
        'sharded in part': lambda: sharded('gps', ignored=True),
        'sharded lora': lambda: sharded('lora'),
        'sharded before': sharded_before,
        'own batches': lambda: own_batches(rank),
        'random': lambda: random_choice(rank),
        'failing': lambda: failing(rank),
        'other selection': lambda: other_selection(rank),
    }
    torch.save({name: case() for name, case in cases.items()}, folder / f'{rank}.pt')
    dist.barrier()
    os._exit(0)  # on a busy machine gloo's threads were seen to abort the process while it takes them down


if __name__ == '__main__':
    work(int(sys.argv[1]), Path(sys.argv[2]))
