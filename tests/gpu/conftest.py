"""Device of these tests: CUDA or the value of ``MMGPS_TEST_DEVICE``; ``cpu`` runs them at toy size."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope='session')
def device() -> str:
    """Name of the device; skips the test if CUDA is missing."""
    name = os.environ.get('MMGPS_TEST_DEVICE', 'cuda')
    if name != 'cpu' and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device; MMGPS_TEST_DEVICE=cpu runs this at toy size')
    return name


@pytest.fixture(scope='session')
def toy(device: str) -> bool:
    """True for sizes that suit a CPU."""
    return device == 'cpu'


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """Compute float32 products without TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
