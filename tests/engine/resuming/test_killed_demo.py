"""The demo with its workers, killed between two checkpoints and resumed, equals an uninterrupted run bit for bit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import assert_same_bits

ROOT = Path(__file__).resolve().parents[3]


def run(work_dir: Path, *at: int) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / 'tests/support/killed_run.py', ROOT / 'configs/gps_polyp_demo.py', work_dir, *at]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=work_dir.parent)


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    killed = run(tmp_path / 'cut', 7)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert (tmp_path / 'cut/last_checkpoint').read_text().endswith('iter_6.pth')
    outputs = [run(tmp_path / 'cut'), run(tmp_path / 'whole')]
    for output in outputs:
        assert output.returncode == 0, output.stderr[-2000:]
    logs = [output.stdout + output.stderr for output in outputs]
    assert 'selection restored from the checkpoint' in logs[0]
    assert 'selection pass:' not in logs[0]
    assert 'selection pass:' in logs[1]
    first, second = (torch.load(tmp_path / name / 'iter_10.pth', weights_only=True) for name in ('cut', 'whole'))
    assert_same_bits(first['state_dict'], second['state_dict'])
    for key, state in second['optimizer']['state'].items():
        assert_same_bits(first['optimizer']['state'][key], state)
    assert scores(logs[0]) == scores(logs[1])


def scores(log: str) -> list[str]:
    """Lines of the table of scores before and after training."""
    table = re.search(r'before and after training\n((?:\w+ +[-\d.]+ +[-\d.]+\n?|score.*\n)+)', log)
    if table is None:
        pytest.fail(log[-3000:])
    return table[1].splitlines()
