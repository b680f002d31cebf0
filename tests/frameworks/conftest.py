"""What the tests of one framework share with those of another."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NEEDED = {
    'test_trainer': ('transformers', 'accelerate'),
    'test_lightning': ('lightning', 'timm'),
    'test_accelerate': ('accelerate', 'timm'),
    'test_networks': ('timm', 'transformers', 'segmentation_models_pytorch', 'torchvision'),
    'test_averages': ('timm',),
    'test_any_model_page': ('timm', 'transformers', 'accelerate', 'lightning'),
}
"""Module of tests to the packages that it needs, all of the extra ``frameworks``."""


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    needed = NEEDED.get(request.module.__name__.rpartition('.')[2], ())
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        pytest.skip(f'needs {", ".join(missing)}')


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the launcher that a test of mm tools set up in this process: accelerate would wait for others."""
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
