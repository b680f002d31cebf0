"""The table, the JSON file and the chart of a comparison."""

import json
import runpy
import sys
from pathlib import Path

import matplotlib.figure
import pytest
from mmengine.config import Config

from mmgps.compare import draw_comparison, run_comparison

ROOT = Path(__file__).resolve().parents[2]
METHODS = ('full', 'linear', 'gps', 'gps:k=5')


@pytest.fixture
def found(settings):
    return run_comparison(settings(*METHODS, lr=['linear=3e-2'], seeds=[0, 2]))


def rows_of(text: str) -> dict[str, list[str]]:
    lines = [line for line in text.splitlines() if line.startswith('|')]
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    return {row[0]: row for row in reversed(cells)}


def test_markdown(found, tmp_path: Path) -> None:
    text = (tmp_path / 'compared/table.md').read_text()
    rows = rows_of(text.partition('Rates tried')[0])
    head, full, gps, linear = rows['method'], rows['full'], rows['gps'], rows['linear']
    expected = {
        'method': 'gps', 'Dice': '81.00 ± 1.41', 'IoU': '71.00 ± 1.41', 'mDice': '86.00 ± 1.41',
        'mIoU': '83.00 ± 1.41', 'trained M': '0.000', 'of all': '3.53%', 'of backbone M': '0.000', 'of it': '1.60%',
        'step / full': '0.67', 'peak / full': '0.98', 'rate': '0.003', 'seeds': '2',
    }  # fmt: skip
    assert dict(zip(head, gps, strict=True)) == expected
    assert [full[head.index(name)] for name in ('of all', 'of it', 'step / full')] == ['100.00%', '100.00%', '1.00']
    assert full[head.index('rate')] == '0.0003*'
    assert linear[head.index('rate')] == '0.03 (given)'
    tried = rows_of(text.partition('Rates tried')[2])
    assert tried['gps'] == ['gps', '0.001: 75.23', '**0.003: 80.00**', '0.01: 74.77']
    assert 'linear' not in tried
    assert '- holdout: 0.125' in text
    assert '- commit: abc' in text


def test_json(found, tmp_path: Path) -> None:
    content = json.loads((tmp_path / 'compared/table.json').read_text())
    assert content['settings']['grids']['full'] == [3e-5, 1e-4, 3e-4]
    assert content['settings']['fixed_rates'] == {'linear': 0.03}
    assert (content['settings']['holdout'], content['settings']['chosen_by']) == (0.125, 'Dice')
    assert (content['settings']['machine'], content['settings']['threads']) == ('a machine', '1')
    assert len(content['rows']) == 2 * len(METHODS)
    row = content['rows'][4]
    assert (row['method'], row['seed'], row['lr'], row['mdice']) == ('gps', 0, 3e-3, 85.0)
    assert (row['trained'], row['total'], row['step_s']) == (180, 5100, pytest.approx(0.1008))
    assert row['peak_bytes'] == 2**28 + 80 * 2**10
    assert {'dice', 'iou', 'miou', 'backbone_trained', 'backbone_total', 'commit', 'machine'} <= row.keys()
    assert len(content['trials']) == 9
    assert str(tmp_path) not in json.dumps(content)


def test_picture(found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each panel labels every method once, without overlaps."""
    drawn = []
    original = matplotlib.figure.Figure.savefig

    def savefig(figure: matplotlib.figure.Figure, *args, **options) -> None:
        drawn.append(figure)
        original(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, 'savefig', savefig)
    draw_comparison(found, tmp_path / 'table.png')
    assert (tmp_path / 'table.png').read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
    [figure] = drawn
    left, right = figure.axes
    assert sorted(text.get_text() for text in left.texts) == ['full', 'gps', 'gps:k=5', 'linear (backbone frozen)']
    assert sorted(text.get_text() for text in right.texts) == sorted(METHODS)
    assert (left.get_xscale(), right.get_xscale()) == ('log', 'linear')
    for axes in (left, right):
        boxes = [matplotlib.text.Text.get_window_extent(text) for text in axes.texts]
        assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])


def test_costs_measured_separately(settings) -> None:
    costs = {'full': dict(step_s=2.0, peak_bytes=100), 'gps': dict(step_s=1.5)}
    run_comparison(chosen := settings('full', 'gps', 'bias', lr=['full=1', 'gps=1', 'bias=1'], costs=costs))
    text = (chosen.work_dir / 'table.md').read_text()
    rows = rows_of(text)
    at = rows['method'].index('step / full')
    assert rows['gps'][at : at + 2] == ['0.75', '-']
    assert rows['bias'][at : at + 2] == ['-', '-']
    assert 'measured separately' in text


def test_tool(config: Config, settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    config.dump(tmp_path / 'tiny_config.py')
    monkeypatch.chdir(tmp_path)
    arguments = ['compare.py', 'tiny_config.py', '--methods', 'bias', 'gps:k=2', '--seeds', '5', '--lr', 'bias=1e-3']
    arguments += ['--lrs', 'gps:k=2=1e-3,3e-3', '--holdout', '0.25', '--cfg-options', 'train_cfg.max_iters=3']
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(ROOT / 'tools/compare.py'), run_name='__main__')
    out = capsys.readouterr().out
    assert rows_of(out.partition('Rates tried')[0]).keys() >= {'bias', 'gps:k=2'}
    [path] = tmp_path.glob('work_dirs/compare_tiny_config/runs/gps_k=2/seed5-*/config.py')
    cfg = Config.fromfile(path)
    assert (cfg.train_cfg.max_iters, cfg.randomness.seed) == (3, 5)
    assert cfg.custom_hooks[-1].method == dict(type='mmgps.GPS', k=2)
    monkeypatch.setenv('FAKE_FAIL', 'bias')
    sys.argv[sys.argv.index('5')] = '6'
    with pytest.raises(SystemExit, match=r'RunFailedError: 1 runs failed(.|\n)*its log is'):
        runpy.run_path(str(ROOT / 'tools/compare.py'), run_name='__main__')
