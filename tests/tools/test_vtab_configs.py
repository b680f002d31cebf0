"""The configs of VTAB-1k and FGVC match the output of their script."""

import shutil
from pathlib import Path

import pytest
import vtab_configs
from vtab_configs import BEGIN, CONFIGS, main, stale, wanted


def test_the_configs_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('sys.argv', ['vtab_configs.py', '--check'])
    main()
    # The base with the table, a base for each of 24 sets, and a leaf for each of three models on each set.
    assert len(wanted(CONFIGS)) == 1 + 24 + 72


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(CONFIGS, tmp_path / 'configs', ignore=shutil.ignore_patterns('__pycache__'))
    monkeypatch.setattr(vtab_configs, 'CONFIGS', tmp_path / 'configs')
    assert stale(tmp_path / 'configs') == []
    return tmp_path / 'configs'


def test_outdated_files_are_named_and_rewritten(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf, base, table = 'classification/vtab/swin-b_dtd.py', '_base_/fgvc/cub.py', '_base_/vtab.py'
    (copied / leaf).unlink()
    (copied / base).write_text('')
    (copied / table).write_text((copied / table).read_text().replace('dtd=(                     47', 'dtd=(48'))
    assert stale(copied) == sorted([leaf, base, table])
    monkeypatch.setattr('sys.argv', ['vtab_configs.py', '--check'])
    with pytest.raises(SystemExit, match=r'outdated: .*swin-b_dtd'):
        main()
    assert not (copied / leaf).exists()
    monkeypatch.setattr('sys.argv', ['vtab_configs.py'])
    main()
    assert all((copied / name).read_bytes() == (CONFIGS / name).read_bytes() for name in (leaf, base, table))


def test_a_file_that_is_not_generated_is_named_and_stays(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copied / 'classification/vtab/vit-b16_mine.py'
    own.write_text('# by hand')
    monkeypatch.setattr('sys.argv', ['vtab_configs.py'])
    with pytest.raises(SystemExit, match='vit-b16_mine'):
        main()
    assert own.read_text() == '# by hand'


def test_a_base_without_its_mark_is_refused(copied: Path) -> None:
    base = copied / '_base_/vtab.py'
    base.write_text(base.read_text().replace(BEGIN, ''))
    with pytest.raises(ValueError, match=r'no table that begins with .*put both lines back'):
        wanted(copied)
