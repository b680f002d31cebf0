"""``--force`` replaces only sets that mmgps made and nobody changed."""

import shutil

import pytest
from support.polyp_files import kvasir, write_zip
from test_convert import IDS, KVASIR, files

from mmgps.datasets.prepare import convert
from mmgps.datasets.prepare import errors as e
from mmgps.datasets.prepare.target import MARKER


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'work' / 'set'


@pytest.mark.parametrize('name', ['thesis.tex', 'images/train/a.jpg', 'val.txt', 'images/'])
def test_foreign_folders_are_never_replaced(tmp_path, out, name):
    """This holds for the names of a prepared set too."""
    at = write_zip(tmp_path / 'a.zip', kvasir(IDS))
    (out / name).parent.mkdir(parents=True)
    (out / name).mkdir(parents=True) if name.endswith('/') else (out / name).write_text('years of work')
    before = sorted(out.rglob('*'))
    for force in (False, True):
        with pytest.raises(
            e.TargetError, match=rf'holds files that mmgps did not make.*\({name.partition("/")[0]}\): name another'
        ):
            convert(KVASIR, at, out, allow_partial=True, force=force)
    assert sorted(out.rglob('*')) == before


@pytest.mark.parametrize(
    'marker', ['', '[]', '{"files": {}}', '{"made by": "me", "files": {}}', '{"made by": "mmgps", "files": 3}']
)
def test_an_invalid_marker_marks_nothing(tmp_path, out, marker):
    out.mkdir(parents=True)
    (out / MARKER).write_text(marker)
    with pytest.raises(e.TargetError, match='holds files that mmgps did not make'):
        convert(KVASIR, write_zip(tmp_path / 'a.zip', kvasir(IDS)), out, allow_partial=True, force=True)


def _add(out):
    (out / 'images/train/mine.jpg').write_text('mine')
    return 'images/train/mine.jpg'


def _correct(out):
    """A mask that the user has corrected: the same size, other bytes."""
    path = out / f'annotations/train/{IDS[0]}.png'
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    return f'annotations/train/{IDS[0]}.png'


def _list_anew(out):
    (out / 'val.txt').write_text((out / 'val.txt').read_text().swapcase())
    return 'val.txt'


def _link(out):
    (out / 'images/test').symlink_to(out.parent)
    return 'images/test'


def _replace_by_link(out):
    (out / 'images/val').rename(out.parent / 'val')
    (out / 'images/val').symlink_to(out.parent / 'val')
    return 'images/val'


@pytest.mark.parametrize('change', [_add, _correct, _list_anew, _link, _replace_by_link])
def test_added_or_changed_files_are_never_replaced(tmp_path, out, change):
    at = write_zip(tmp_path / 'a.zip', kvasir(IDS))
    convert(KVASIR, at, out, allow_partial=True)
    named, before = change(out), sorted(out.rglob('*'))
    with pytest.raises(e.TargetError, match=rf'added or changed since mmgps prepared it \({named}\): name another'):
        convert(KVASIR, at, out, allow_partial=True, force=True)
    assert sorted(out.rglob('*')) == before


def test_a_file_that_appears_while_the_set_is_made_again_stays(tmp_path, out):
    at = write_zip(tmp_path / 'a.zip', kvasir(IDS))
    convert(KVASIR, at, out, allow_partial=True)
    with pytest.raises(e.TargetError, match=r'mine\.jpg'):
        convert(KVASIR, at, out, allow_partial=True, force=True, progress=lambda done, total: _add(out))
    assert (out / 'images/train/mine.jpg').read_text() == 'mine'


def test_a_set_that_lost_files_or_was_moved_is_replaced(tmp_path, out):
    at = write_zip(tmp_path / 'a.zip', kvasir(IDS))
    convert(KVASIR, at, out.with_name('before'), allow_partial=True)
    shutil.copytree(out.with_name('before'), out)
    (out / 'val.txt').unlink()
    (out / '.DS_Store').touch()
    convert(KVASIR, at, out, allow_partial=True, force=True)
    assert files(out) == files(out.with_name('before'))
