"""One run of the benchmark on the tiny config."""

from pathlib import Path

import pytest

pytest.importorskip('mmseg')

from mmengine.config import Config
from tiny import tiny_config

from mmgps.benchmark import Options, Report, Setup, run_benchmark

METHODS = ['full', 'linear', 'bias', 'gps-masked-k1', 'gps-compact-k1', 'gps-compact-k2']


@pytest.fixture(scope='session')
def benchmark_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return tiny_config(tmp_path_factory.mktemp('benchmark'), custom_imports=dict(imports=['tiny']))


@pytest.fixture(scope='session')
def setup(benchmark_config: Config) -> Setup:
    return Setup(benchmark_config)


@pytest.fixture(scope='session')
def report(setup: Setup) -> Report:
    options = Options(METHODS, steps=3, warmup=1, selection_batches=2, peak=False, selection_cost=True)
    return run_benchmark(setup, options, 'tiny.py')


@pytest.fixture
def config_file(benchmark_config: Config, tmp_path: Path) -> Path:
    path = tmp_path / 'tiny_config.py'
    benchmark_config.dump(path)
    return path
