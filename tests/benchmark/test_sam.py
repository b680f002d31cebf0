"""Benchmark of SAM against the authors' code."""

import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmseg')

from tiny_sam import TINY

from mmgps.benchmark import Options, Setup, run_benchmark, sam
from mmgps.benchmark.sam import StepCost, Workload, format_costs, measure

ROOT = Path(__file__).resolve().parents[2]


def test_a_step_of_mmgps() -> None:
    cost = measure('mmgps', Workload(dict(**TINY), 64))
    assert 0 < cost.step_s < 10
    assert cost.peak_bytes > 2**20


def test_the_size_of_segment_anything_is_fixed() -> None:
    pytest.importorskip('segment_anything')
    with pytest.raises(ValueError, match='segment-anything is built for 1024 px, got size=512'):
        measure('segment-anything', Workload('vit_b', 512))


def test_table() -> None:
    lines = format_costs({'segment-anything': StepCost(4.0, 2**32), 'mmgps': StepCost(3.0, 2**31)}).splitlines()
    assert lines[1].split() == ['segment-anything', '4.00', '1.00', '4096', '1.00']
    assert lines[2].split() == ['mmgps', '3.00', '0.75', '2048', '0.50']


def test_tool(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    seen = []

    def in_child(what, measure, name, load) -> StepCost:
        seen.append((name, load))
        return StepCost(1.0, 2**20)

    monkeypatch.setattr(sam, 'in_child', in_child)
    monkeypatch.setattr(sys, 'argv', ['benchmark_sam.py', '--arch', 'vit_l', '--steps', '3', '--recompute'])
    runpy.run_path(str(ROOT / 'tools/benchmark_sam.py'), run_name='__main__')
    assert seen == [(name, Workload('vit_l', 1024, 3, 'cpu', True)) for name in ('segment-anything', 'mmgps')]
    assert 'mmgps' in capsys.readouterr().out


def test_the_benchmark_runs_on_sam(real_data: Path) -> None:
    """On the reduced config, where every layer has a gradient route."""
    from mmengine.config import Config

    from mmgps.engine.configs.config import set_data_root

    cfg = Config.fromfile(ROOT / 'configs/sam/gps_sam-mini_kvasir-128.py')
    set_data_root(cfg, str(real_data / 'kvasir_seg_352'))
    options = Options(
        ['full', 'bias', 'gps-compact-k1'], steps=1, warmup=0, batch_size=2, selection_batches=1, peak=False
    )
    report = run_benchmark(Setup(cfg), options, 'sam-mini')
    saved = {name: own.saved_bytes for name, own in report.measurements.items()}
    assert saved['bias'] <= saved['gps-compact-k1'] < saved['full']
