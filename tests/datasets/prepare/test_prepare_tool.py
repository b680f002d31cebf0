"""The command line, and the download before the conversion."""

import dataclasses
import hashlib
import runpy
import sys
import time
from pathlib import Path

import pytest
from support.file_server import FileServer
from support.polyp_files import kvasir, write_zip

from mmgps.datasets.prepare import conversion, get_source, prepare
from mmgps.datasets.prepare import errors as e
from mmgps.utils.download import Checksum

ROOT = Path(__file__).resolve().parents[3]
IDS = ['a', 'b', sorted(get_source('kvasir-seg').official_val())[0]]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')


@pytest.fixture
def tool(monkeypatch):
    """Run the command in this process."""

    def run_command(*args):
        monkeypatch.setattr(sys, 'argv', ['prepare_polyp.py', *map(str, args)])
        runpy.run_path(str(ROOT / 'tools/prepare_polyp.py'), run_name='__main__')

    return run_command


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Kvasir-SEG in miniature on a local server."""
    data = write_zip(tmp_path / 'made.zip', kvasir(IDS)).read_bytes()
    with FileServer(data) as server:
        checksum = Checksum('sha256', hashlib.sha256(data).hexdigest())
        source = dataclasses.replace(get_source('kvasir-seg'), url=server.url('kvasir-seg.zip'), checksum=checksum)
        monkeypatch.setattr(conversion, 'get_source', lambda name: source)
        yield server


def test_from_a_zip_by_command(tmp_path, tool, capsys):
    at = write_zip(tmp_path / 'kvasir-seg.zip', kvasir(IDS))
    tool('kvasir-seg', '--source', at, '--out', tmp_path / 'set', '--allow-partial')
    printed = capsys.readouterr()
    assert 'Kvasir-SEG in' in printed.out
    assert '2 train, 1 val' in printed.out
    assert 'converting Kvasir-SEG: 3/3 images' in printed.err
    assert (tmp_path / f'set/annotations/val/{IDS[2]}.png').is_file()


def test_without_network_the_command_ends_at_once_with_one_paragraph(tmp_path, tool, monkeypatch):
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    start = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        tool('kvasir-seg', '--out', tmp_path / 'data/set')
    assert time.monotonic() - start < 5
    paragraph = str(ended.value)
    zipped = tmp_path / 'data/kvasir-seg.zip'
    assert '\n' not in paragraph
    for part in ('Kvasir-SEG is missing', 'could not be reached', 'https://datasets.simula.no/kvasir-seg', str(zipped)):
        assert part in paragraph
    assert f'(python tools/prepare_polyp.py kvasir-seg): --source {zipped}' in paragraph
    assert list((tmp_path / 'data').iterdir()) == []


def test_downloaded_then_converted(tmp_path, served, capsys):
    summary = prepare('kvasir-seg', tmp_path / 'work/set', allow_partial=True)
    assert summary.counts == {'train': 2, 'val': 1}
    assert sorted(path.name for path in (tmp_path / 'work').iterdir()) == ['kvasir-seg.zip', 'set']
    assert 'downloading Kvasir-SEG: 0.0/0.0 MB' in capsys.readouterr().err
    prepare('kvasir-seg', tmp_path / 'work/set', allow_partial=True, force=True)
    assert len(served.requests) == 1


def test_download_dir(tmp_path, served):
    prepare('kvasir-seg', tmp_path / 'work/set', download_dir=tmp_path / 'zips', allow_partial=True)
    assert [path.name for path in (tmp_path / 'work').iterdir()] == ['set']
    assert (tmp_path / 'zips/kvasir-seg.zip').is_file()


def test_nothing_is_downloaded_for_a_set_that_is_there(tmp_path, served):
    (tmp_path / 'set/images').mkdir(parents=True)
    with pytest.raises(e.TargetError, match='holds files that mmgps did not make'):
        prepare('kvasir-seg', tmp_path / 'set')
    assert served.requests == []


def test_a_download_with_another_checksum(tmp_path, served):
    served.content = served.content[:-1] + b'!'
    with pytest.raises(e.SourceUnavailableError, match=r'has sha256 .* expected'):
        prepare('kvasir-seg', tmp_path / 'work/set')
    assert list((tmp_path / 'work').iterdir()) == []


@pytest.mark.parametrize('name', ['cvc-clinicdb', 'cvc-colondb', 'etis-larib', 'cvc-300'])
def test_sets_without_an_address_name_their_origin(tmp_path, name):
    with pytest.raises(
        e.SourceUnavailableError, match=rf'It comes from .*http.* tools/prepare_polyp.py {name}\): --source'
    ):
        prepare(name, tmp_path / 'set')
