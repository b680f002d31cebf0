"""Tables of suites, from invented results and from the paper's results."""

import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmseg')

from mmgps.compare.markdown import Column, read_column, suite_table
from mmgps.vtab_tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
#: Scores of GPS in the paper: table 3 (VTAB-1k) and FGVC.
VTAB = (
    81.1, 94.2, 75.8, 99.4, 91.7, 91.6, 52.4, 87.9, 96.2, 86.5, 76.5, 79.9, 62.6, 55.0, 82.4, 84.0, 55.4, 29.7, 46.1
)  # fmt: skip
FGVC = {'cub': 89.9, 'nabirds': 86.7, 'flowers': 99.7, 'dogs': 92.2, 'cars': 90.4}


def cells(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines() if line.startswith('|')]
    return {line[0]: line for line in lines}


def write(path: Path, config: str, scores: dict[str, list[float]]) -> Path:
    rows = [
        dict(method=method, seed=seed, top1=top1, trained=10 if method == 'gps' else 2, total=1000 + (method == 'lora'))
        for method, found in scores.items()
        for seed, top1 in enumerate(found)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(settings=dict(config=config), rows=rows, trials=[], costs=None)))
    return path


def test_fgvc_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    paths = [
        write(tmp_path / name / 'table.json', f'vit-b16_{name}.py', {'gps': [score - 1, score + 1], 'lora': [50.0]})
        for name, score in reversed(FGVC.items())
    ]
    write(paths[0], 'vit-b16_cars.py', {'gps': [FGVC['cars']]})
    monkeypatch.setattr(sys, 'argv', ['suite_table.py', *map(str, paths)])
    runpy.run_path(str(ROOT / 'tools/suite_table.py'), run_name='__main__')
    out = capsys.readouterr().out
    found = cells(out)
    assert found['method'] == ['method', *FGVC, 'mean', 'trained']
    assert found['gps'] == ['gps', '89.90', '86.70', '99.70', '92.20', '90.40', '91.78', '1.00%']
    assert found['lora'] == ['lora', '50.00', '50.00', '50.00', '50.00', '-', '-', '0.20%']
    assert '(1 to 2 per method and set)' in out
    sys.argv[1:] = ['--metric', 'dice', str(paths[0])]
    with pytest.raises(SystemExit, match=r"has the score 'dice'; the scores are dice, iou, .*top1"):
        runpy.run_path(str(ROOT / 'tools/suite_table.py'), run_name='__main__')


def test_vtab_means_by_group_and_over_all_tasks() -> None:
    columns = [
        Column(task.name, {'gps': score}, {'gps': 0.0025}, {'gps': 1}) for task, score in zip(TASKS, VTAB, strict=True)
    ]
    found = cells(suite_table(columns))
    assert found['method'][-5:] == ['natural', 'specialized', 'structured', 'mean', 'trained']
    assert found['gps'][-5:] == ['83.74', '86.78', '61.89', '75.18', '0.25%']
    part = cells(suite_table(columns[5:9]))
    sets = ['svhn', 'sun397', 'patch_camelyon', 'eurosat']
    assert part['method'] == ['method', *sets, 'natural', 'specialized', 'mean', 'trained']


def test_incompatible_sets(tmp_path: Path) -> None:
    one = Column('cub', {'gps': 1.0}, {'gps': 0.1}, {'gps': 1})
    with pytest.raises(ValueError, match='given twice in cub, cub'):
        suite_table([one, one])
    with pytest.raises(ValueError, match='cub, svhn are not sets of one suite; the suites are fgvc: cub, nabirds'):
        suite_table([one, Column('svhn', {'gps': 1.0}, {'gps': 0.1}, {'gps': 1})])
    pair = [read_column(write(tmp_path / f'{n}.json', f'{n}.py', {'gps': [1.0]})) for n in ('vit_cub', 'swin_dogs')]
    with pytest.raises(ValueError, match='of swin, scored on the validation set; vit, scored on the validation set'):
        suite_table(pair)
    (tmp_path / 'table.json').write_text('[]')
    with pytest.raises(ValueError, match=r'is no table.json of tools/compare.py'):
        read_column(tmp_path / 'table.json')
