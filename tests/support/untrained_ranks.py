"""First iteration with branches that not all processes run, and with ZeroRedundancyOptimizer."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from mmgps.selection import sum_gradients
from mmgps.sparse import CompactTraining, MaskedTraining
from mmgps.tuned import take_over
from mmgps.tuning import GPS, FirstIteration, check_held, trained_tensors


class Branches(nn.Module):
    """Rank 0 runs the first branch, rank 1 the second, and no rank runs the third."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        return self.branches[self.rank](x).sum()


def unused(rank: int) -> tuple[bool, list[str]]:
    model = Branches(rank)
    trained = trained_tensors(model, {}, {})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    check_held(trained, [optimizer])
    first = FirstIteration(model, trained, [optimizer], '')
    model(torch.ones(2, 4)).backward()
    optimizer.step()
    return first.finish()


def zero(kind: type) -> str:
    """Return the refusal of an optimizer that distributes its state, or the names of the tensors that move."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    gps, x = GPS(1), torch.randn(8, 4)
    weights = {name: entry.value for name, entry in gps.candidates(net).items()}
    selection = gps.select(net, sum_gradients(net, weights, [x], lambda batch: net(batch).square().sum()))
    training = kind(net, selection)
    optimizer = ZeroRedundancyOptimizer(net.parameters(), torch.optim.AdamW, lr=0.1)
    try:
        take_over([optimizer], [], training, {})
    except ValueError as error:
        return str(error)
    training.start()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(x).square().sum().backward()
    training.before_step()
    optimizer.step()
    training.after_step()
    return ' '.join(name for name, value in net.state_dict().items() if not torch.equal(value, before[name]))


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    found = dict(unused=unused(rank), compact=zero(CompactTraining), masked=zero(MaskedTraining))
    torch.save(found, folder / f'{rank}.pt')
    dist.barrier()
    os._exit(0)


if __name__ == '__main__':
    main(int(sys.argv[1]), Path(sys.argv[2]))
