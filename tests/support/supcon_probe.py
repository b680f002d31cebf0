"""Contrastive selection pass by two processes: start python supcon_probe.py RANK FOLDER for both ranks."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.registry import MODELS, init_default_scope

from mmgps.utils.requirements import require

require('mmpretrain')

from selection_probe import probed  # noqa: E402
from tiny_classes import PIPELINE, classifier  # noqa: E402
from torch import nn  # noqa: E402

from mmgps.engine import SupConLoss  # noqa: E402

WORLD, SIZE = 2, 4
LABELS = (0, 1, 2, 0, 1, 2, 0, 0, 1, 2)
"""Ten images in batches of 4, 4 and 2: one process has two batches, the other only one that counts."""


def model() -> nn.Module:
    """Build a ViT without randomness."""
    torch.manual_seed(0)
    return MODELS.build(classifier())


def probe() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the summed gradients and chosen positions of this process."""
    data = dict(type='TinyClasses', labels=LABELS, pipeline=PIPELINE)
    sampler = dict(type='DefaultSampler', shuffle=True)
    collate = dict(type='default_collate')
    options = dict(batch_size=SIZE, num_workers=0, sampler=sampler, dataset=data, collate_fn=collate)
    return probed(model(), options, SupConLoss())[:2]


if __name__ == '__main__':
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    store = dist.FileStore(str(folder / 'store'), WORLD)
    dist.init_process_group('gloo', store=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=120))
    torch.save(probe(), folder / f'{rank}.pth')
    dist.destroy_process_group()
