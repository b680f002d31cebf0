"""A torchvision built for CUDA beside a CPU build of torch. Each case runs in its own interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: On import, torchvision describes the shapes of operators that its extension defines.
LIKE_TORCHVISION = """
import torch

@torch.library.register_fake('torchvision::nms')
def nms(dets, scores, iou_threshold):
    return dets

@torch.library.register_fake('torchvision::qnms')
def qnms(dets, scores, iou_threshold):
    return dets
"""
DECLARE = 'from mmgps.utils.requirements import declare_missing_operators as declare; print(declare(), declare())'
KNOWN = "import torch; print(hasattr(torch.ops.torchvision, 'nms'))"


def run(folder: Path, *lines: str, cuda: str = 'None') -> subprocess.CompletedProcess:
    code = '\n'.join([f'import torch; torch.version.cuda = {cuda}', *lines])
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run([sys.executable, '-c', code], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def torchvision(tmp_path: Path):
    """Make a package that stands for torchvision of a given version."""

    def make(version: str) -> Path:
        (tmp_path / 'torchvision').mkdir()
        (tmp_path / 'torchvision/version.py').write_text(f"__version__ = '{version}'\ngit_version = 'x'\n")
        (tmp_path / 'torchvision/__init__.py').write_text(LIKE_TORCHVISION)
        return tmp_path

    return make


def test_a_cuda_build_beside_a_cpu_torch_imports_after_the_declaration_only(torchvision) -> None:
    folder = torchvision('0.28.0+cu130')
    broken = run(folder, 'import torchvision')
    assert 'operator torchvision::nms does not exist' in broken.stderr
    # Called twice: the second call repeats the answer and declares nothing anew. A collection must not undeclare.
    mended = run(folder, DECLARE, 'import gc; gc.collect()', 'import torchvision', KNOWN)
    assert mended.stderr == ''
    assert mended.stdout.split() == ['True', 'True', 'True']


def test_matching_builds_are_left_alone(torchvision) -> None:
    folder = torchvision('0.28.0+cpu')
    answer = run(folder, DECLARE, KNOWN)
    assert answer.stdout.split() == ['False', 'False', 'False'], answer.stderr


def test_a_cuda_torch_is_left_alone(torchvision) -> None:
    answer = run(torchvision('0.28.0+cu130'), DECLARE, KNOWN, cuda="'13.0'")
    assert answer.stdout.split() == ['False', 'False', 'False'], answer.stderr


def test_without_torchvision_there_is_nothing_to_do(tmp_path: Path) -> None:
    absent = 'import importlib.util as u; find = u.find_spec'
    hide = "u.find_spec = lambda name, *rest: None if name == 'torchvision' else find(name, *rest)"
    answer = run(tmp_path, absent, hide, DECLARE, KNOWN)
    assert answer.stdout.split() == ['False', 'False', 'False'], answer.stderr


def test_the_installed_torchvision_imports(tmp_path: Path) -> None:
    pytest.importorskip('mmseg')
    from importlib.util import find_spec

    if find_spec('torchvision') is None:
        pytest.skip('torchvision is not installed')
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {DECLARE}; import torchvision, mmseg; print('imported')"
    answer = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert answer.stdout.split()[-1:] == ['imported'], answer.stderr
