"""Masked and compact training by two processes; each process saves its final state."""

import copy
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from training_pair import prepare, random_selection

from mmgps.sparse import CompactTraining, MaskedTraining

KINDS = {'masked': MaskedTraining, 'compact': CompactTraining}
STEPS = 6


class Net(nn.Module):
    """A convolution, attention and two branches; a call may skip the second branch."""

    reads = False
    """True to read the weight of the first branch without calling it as well."""

    def __init__(self, norm: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = norm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, both: bool) -> Tensor:
        x = self.norm(self.conv(x)).relu().flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x)[0]
        x = nn.functional.linear(x, self.first.weight) if self.reads else x
        return self.first(x) + self.second(x) if both else self.first(x)


def both(case: str, step: int, rank: int) -> bool:
    """Tell whether a call uses both branches; in the case ``unused``, some or all processes skip the second one."""
    return case != 'unused' or step % 3 == 0 or (step % 3 == 1 and rank == 0)


def images(step: int, rank: int, part: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + 10 * rank + part)
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator)


def loss(network: nn.Module, case: str, step: int, rank: int, part: int) -> Tensor:
    return (network(images(step, rank, part), both(case, step, rank)) - 0.3).square().mean()


#: Options of DDP, number of parts per batch, and the norm, by case. On the CPU DDP refuses SyncBatchNorm.
CASES: dict[str, tuple[dict[str, Any], int, type[nn.Module]]] = {
    'plain': ({}, 1, nn.Identity),
    'unused': (dict(find_unused_parameters=True), 1, nn.Identity),
    'static': (dict(static_graph=True), 1, nn.Identity),
    'accumulated': ({}, 3, nn.Identity),
    'read': ({}, 1, nn.Identity),
    'batch-norm': ({}, 1, nn.BatchNorm2d),
}


def base_of(case: str) -> nn.Module:
    torch.manual_seed(0)
    network = Net(CASES[case][2]).double()
    network.reads = case == 'read'
    return network


class Counter:
    """Counts the values that a process exchanges, by DDP and by other calls of ``dist.all_reduce``."""

    def __init__(self) -> None:
        self.by_ddp = self.otherwise = 0
        self._reduce = dist.all_reduce

    def hook(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        self.by_ddp += bucket.buffer().numel()
        future = self._reduce(bucket.buffer() / dist.get_world_size(), async_op=True).get_future()
        return future.then(lambda done: done.value()[0])

    def __call__(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.otherwise += tensor.numel()
        return self._reduce(tensor, *args, **kwargs)


def run(kind: str, case: str, rank: int) -> dict[str, Any]:
    """Return the state after training, and the number of exchanged values per step."""
    options, parts, _ = CASES[case]
    network = base_of(case)
    training, optimizer = prepare(KINDS[kind], network, random_selection(network, 2), 'sgd', registered=False)
    wrapped = DistributedDataParallel(network, **options)  # after freezing, like the hook
    counter = Counter()
    if case == 'plain':
        wrapped.register_comm_hook(None, counter.hook)
        dist.all_reduce = counter
    for step in range(STEPS):
        optimizer.zero_grad()
        for part in range(parts):
            with wrapped.no_sync() if part < parts - 1 else nullcontext():
                loss(wrapped, case, step, rank, part).backward()
        training.before_step()
        optimizer.step()
        training.after_step()
    dist.all_reduce = counter._reduce
    return dict(state=network.state_dict(), ddp=counter.by_ddp // STEPS, otherwise=counter.otherwise // STEPS)


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    for case in CASES:
        for kind in KINDS:
            torch.save(run(kind, case, rank), folder / f'{case}-{kind}-{rank}.pt')
    dist.barrier()
    os._exit(0)  # gloo's threads may abort a process while it shuts down on a busy machine


def alone(case: str) -> dict[str, Tensor]:
    """Return the state after masked training by one process over the samples of both."""
    network = copy.deepcopy(base_of(case))
    training, optimizer = prepare(MaskedTraining, network, random_selection(network, 2), 'sgd')
    for step in range(STEPS):
        optimizer.zero_grad()
        for rank in range(2):
            for part in range(CASES[case][1]):
                (loss(network, case, step, rank, part) / 2).backward()
        training.before_step()
        optimizer.step()
        training.after_step()
    return network.state_dict()
