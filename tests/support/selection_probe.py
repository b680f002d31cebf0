"""The selection pass on 1, 2 and 4 processes: python selection_probe.py RANK FOLDER; all four ranks at once."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.registry import MODELS, init_default_scope

from mmgps.utils.requirements import require

require('mmseg')

from probing import probed  # noqa: E402
from tiny import PIPELINE, tiny_model  # noqa: E402
from torch import nn  # noqa: E402

WORLDS = (1, 2, 4)
LENGTHS = {'five': 5, 'three': 3}


class InStep(nn.Identity):
    """Exchanges something with the other processes in each forward pass, as SyncBN does."""

    def forward(self, x):
        met = torch.ones(1)
        dist.all_reduce(met)
        assert met == dist.get_world_size()
        return x


def model() -> nn.Module:
    """Without anything random, and without norms that look at a batch."""
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
