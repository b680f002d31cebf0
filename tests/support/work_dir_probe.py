"""Start of a run of several processes: start python work_dir_probe.py RANK FOLDER for all ranks."""

import os
import sys
from pathlib import Path

import ranks  # noqa: F401  so that it runs without a CUDA device
import torch.distributed as dist
from mmengine.config import Config

from mmgps.engine import WorkDirError, enter_work_dir

if __name__ == '__main__':
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=(folder / 'port').read_text())
    environment = dict(dist_cfg=dict(backend='gloo'))
    try:
        lock = enter_work_dir(Config(dict(launcher='pytorch', env_cfg=environment, work_dir=str(folder / 'run'))))
        told = f'held: {lock is not None}'
    except WorkDirError as error:
        told = str(error)
    (folder / f'{rank}.txt').write_text(told)
    dist.barrier()
    dist.destroy_process_group()
