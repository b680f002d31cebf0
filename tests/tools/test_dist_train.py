"""tools/dist_train.sh with two processes on the CPU."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import assert_same_bits, tiny_config

from mmgps.selection import load_selection

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


@pytest.mark.skipif(sys.platform == 'win32', reason='the launcher is a bash script')
def test_two_processes_hold_the_same_selection_and_weights(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path / 'run', max_iters=2)
    cfg.custom_imports = dict(imports=['tiny', 'ranks'])
    cfg.custom_hooks.append(dict(type='RankProbe', folder=str(tmp_path)))
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    cfg.dump(tmp_path / 'config.py')
    environment = {
        **os.environ,
        'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests/support')]),
        'PORT': str(free_port()),
        'CUDA_VISIBLE_DEVICES': '',
        'OMP_NUM_THREADS': '1',
    }
    command = [ROOT / 'tools/dist_train.sh', tmp_path / 'config.py', '2', '--tune', 'gps', '--tune-options', 'k=2']
    options = ['--cfg-options', 'env_cfg.dist_cfg.backend=gloo']
    answer = subprocess.run([*command, *options], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-3000:]
    first, second = (load_selection(tmp_path / f'selection-{rank}.safetensors') for rank in range(2))
    assert first.settings['k'] == 2
    assert first.equals(second)
    assert first.equals(load_selection(tmp_path / 'run/selection.safetensors'))
    states = [torch.load(tmp_path / f'state-{rank}.pth') for rank in range(2)]
    parameters = [{name: v for name, v in state.items() if 'running_' not in name} for state in states]
    assert_same_bits(parameters[0], parameters[1])
    checkpoint = torch.load(tmp_path / 'run/iter_2.pth', weights_only=True)
    assert_same_bits(checkpoint['state_dict'], states[0])
