"""Shared fixtures."""

import os
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from mmgps.utils.requirements import declare_missing_operators

declare_missing_operators()  # before a test module imports mmseg
ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Let yapf, which mmengine loads, write its cache before two workers do so at once and one reads half of it."""
    if not hasattr(config, 'workerinput'):
        with suppress(ImportError):
            import yapf.yapflib.yapf_api  # noqa: F401


def data_root() -> Path:
    """Folder of the real images and weights; tests that need them skip where they are absent."""
    return Path(os.environ.get('MMGPS_TEST_DATA', ROOT / '../shared/data'))


@pytest.fixture(scope='session')
def real_data() -> Path:
    folder = data_root()
    if not (folder / 'kvasir_seg_352').is_dir():
        pytest.skip(f'no real images at {folder}; set MMGPS_TEST_DATA to a folder with kvasir_seg_352')
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope='session', autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)
