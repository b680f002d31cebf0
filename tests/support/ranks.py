"""Distributed runs on the CPU: start their processes, and save the final state of each.

The config of such a run has to import this module through ``custom_imports``.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmgps.selection import save_selection

ROOT = Path(__file__).resolve().parents[2]

if not torch.cuda.is_available():
    # mmengine's launcher picks a CUDA device for every process, with any backend.
    torch.cuda.set_device = lambda device: None


@HOOKS.register_module(force=True)
class RankProbe(Hook):
    """Save the selection and the weights of each process when training ends.

    Args:
        folder: Folder of the files.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def after_train(self, runner) -> None:
        [selection] = [hook.selection for hook in runner.hooks if hasattr(hook, 'selection')]
        save_selection(selection, self.folder / f'selection-{get_rank()}.safetensors')
        torch.save(runner.model.module.state_dict(), self.folder / f'state-{get_rank()}.pth')


def run_ranks(script: str, world: int, folder: Path, **variables: str) -> None:
    """Run ``script`` of this folder as ``world`` processes with their rank and ``folder`` as arguments.

    The environment is that of ``torchrun``, without a GPU, plus ``variables``.
    """
    path = ROOT / 'tests/support' / script
    paths = os.pathsep.join([str(ROOT), str(path.parent), *filter(None, [os.environ.get('PYTHONPATH')])])
    environment = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    environment |= {'WORLD_SIZE': str(world), **variables}
    ranks = [
        subprocess.Popen(
            [sys.executable, path, str(rank), folder],
            env={**environment, 'RANK': str(rank), 'LOCAL_RANK': str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    said = [process.communicate(timeout=600)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0] * world, '\n'.join(text[-3000:] for text in said)
