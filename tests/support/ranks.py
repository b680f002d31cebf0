"""Run a script as the processes of one distributed run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(script: str, world: int, folder: Path, **variables: str) -> None:
    """Start ``script`` of this folder as ``world`` processes, each with its rank and ``folder``, and wait for all.

    The environment is that of ``torchrun``, for those that read it, without a GPU, and with the given ``variables``.
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
