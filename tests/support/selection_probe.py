"""Selection pass by 1, 2 and 4 processes: start python selection_probe.py RANK FOLDER for all four ranks."""

import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from mmgps.utils.requirements import require

require('mmseg')

from tiny import PIPELINE, tiny_model  # noqa: E402
from torch import nn  # noqa: E402

from mmgps.engine import GPSOptimWrapper  # noqa: E402
from mmgps.engine.selecting.selection_pass import select  # noqa: E402
from mmgps.tuning import GPS  # noqa: E402

SEED = 3
WORLDS = (1, 2, 4)
LENGTHS = {'five': 5, 'three': 3}


def probed(model: nn.Module, loader: dict[str, Any], *objective: Any) -> tuple[dict, dict, int]:
    """Run a selection pass without a runner.

    Args:
        model: A model with a backbone.
        loader: Config of the training data loader.
        objective: The selection loss; the task's loss if missing.

    Returns:
        Summed gradients, chosen positions, and the number of batches in this process.
    """
    runner = SimpleNamespace(
        train_dataloader=Runner.build_dataloader(loader),
        seed=SEED,
        model=model,
        optim_wrapper=GPSOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)),
        logger=MMLogger.get_current_instance(),
    )
    gradients = {}
    method = GPS(2)
    chosen = method.select
    method.select = lambda backbone, found: (gradients.update(found), chosen(backbone, found))[1]
    choice = select(runner, model.backbone, method, None, *objective)
    return gradients, {name: item.positions for name, item in choice.selection.connections.items()}, choice.cost.batches


class InStep(nn.Identity):
    """Synchronizes the processes in each forward pass, like SyncBN."""

    def forward(self, x):
        met = torch.ones(1)
        dist.all_reduce(met)
        assert met == dist.get_world_size()
        return x


def model() -> nn.Module:
    """Build a model without randomness and without norms over the batch."""
    torch.manual_seed(0)
    options = tiny_model()
    options['backbone'].update(drop_rate=0.0, drop_path_rate=0.0)
    options['decode_head'].update(norm_cfg=None, dropout_ratio=0.0)
    made = MODELS.build(options)
    made.decode_head.convs.insert(0, InStep())
    return made


def probe(length: int):
    data = dict(type='TinyPictures', count=length, pipeline=PIPELINE)
    sampler = dict(type='InfiniteSampler', shuffle=True)
    return probed(model(), dict(batch_size=1, num_workers=0, sampler=sampler, dataset=data))


if __name__ == '__main__':
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    for world in WORLDS:
        if rank < world:
            store = dist.FileStore(str(folder / f'store-{world}'), world)
            dist.init_process_group('gloo', store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
            for name, length in LENGTHS.items():
                torch.save(probe(length), folder / f'{name}-{world}-{rank}.pth')
            dist.destroy_process_group()
