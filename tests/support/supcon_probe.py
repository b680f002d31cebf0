"""A contrastive selection pass on several processes: python supcon_probe.py RANK FOLDER; all ranks at once."""

import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from mmgps.requirements import require

require('mmpretrain')

from tiny_classes import PIPELINE, classifier  # noqa: E402
from torch import nn  # noqa: E402

from mmgps.engine import GPSOptimWrapper, SupConLoss  # noqa: E402
from mmgps.engine.selection_pass import select  # noqa: E402
from mmgps.tuning import GPS  # noqa: E402

WORLD, SEED, SIZE = 2, 3, 4
LABELS = (0, 1, 2, 0, 1, 2, 0, 0, 1, 2)
"""Ten images: batches of 4, 4 and 2, so one process has two batches and the other only one that counts."""


def model() -> nn.Module:
    """A ViT without anything random."""
    torch.manual_seed(0)
    return MODELS.build(classifier())


def probe() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Summed gradients and chosen positions of this process."""
    data = dict(type='TinyClasses', labels=LABELS, pipeline=PIPELINE)
    sampler = dict(type='DefaultSampler', shuffle=True)
    collate = dict(type='default_collate')
    options = dict(batch_size=SIZE, num_workers=0, sampler=sampler, dataset=data, collate_fn=collate)
    made = model()
    runner = SimpleNamespace(
        train_dataloader=Runner.build_dataloader(options),
        seed=SEED,
        model=made,
        optim_wrapper=GPSOptimWrapper(torch.optim.SGD(made.parameters(), lr=0.1)),
        logger=MMLogger.get_current_instance(),
    )
    gradients = {}
    method = GPS(2)
    chosen = method.select
    method.select = lambda backbone, found: (gradients.update(found), chosen(backbone, found))[1]
    choice = select(runner, made.backbone, method, None, SupConLoss())
    return gradients, {name: item.positions for name, item in choice.selection.connections.items()}


if __name__ == '__main__':
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    store = dist.FileStore(str(folder / 'store'), WORLD)
    dist.init_process_group('gloo', store=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=120))
    torch.save(probe(), folder / f'{rank}.pth')
    dist.destroy_process_group()
