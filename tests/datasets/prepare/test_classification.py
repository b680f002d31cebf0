"""Published files become complete, counted sets, or nothing at all."""

import dataclasses
import hashlib
import io
import runpy
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip('mmseg')

from class_files import cars, cub, dogs, flowers102, nabirds, picture, vtab, write_parts, write_tar
from file_server import FileServer
from polyp_files import write_folder, write_zip

from mmgps.datasets.prepare import errors as e
from mmgps.datasets.prepare.archives import unpack
from mmgps.datasets.prepare.class_sets import FGVC, FLOWER_NAMES, SourceFile, vtab_set
from mmgps.datasets.prepare.classification import prepare_set
from mmgps.datasets.prepare.target import MARKER
from mmgps.utils.download import Checksum

ROOT = Path(__file__).resolve().parents[3]
FILES = {
    'cub': lambda: {'CUB_200_2011.tgz': cub()},
    'nabirds': lambda: {'nabirds.tar.gz': nabirds()},
    'oxford-flowers': flowers102,
    'stanford-dogs': dogs,
    'stanford-cars': cars,
}
OURS = {'nabirds', 'stanford-dogs'}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / 'sets/made'


def made(name: str, at: Path, out: Path, **options) -> str:
    return prepare_set(FGVC[name], out, 'the command', at=at, **{'allow_partial': True, **options})


def left_behind(out: Path) -> list[Path]:
    return list(out.parent.iterdir()) if out.parent.exists() else []


@pytest.mark.parametrize('name', FILES)
def test_each_set_from_its_published_files(name: str, tmp_path: Path, out: Path) -> None:
    """The class that trains on the set reads it back: mmpretrain's, or ours if mmpretrain has none."""
    pytest.importorskip('scipy')
    if name != 'nabirds':
        pytest.importorskip('mmpretrain')
    text = made(name, write_parts(tmp_path / 'files', FILES[name]()), out)
    assert f'{FGVC[name].title} in {out}: ' in text
    counts = {'cub': '2 train, 2 test', 'nabirds': '3 train, 1 test', 'oxford-flowers': '2 train, 2 val, 2 test'}
    assert counts.get(name, '2 train, 2 test') in text
    assert {path.name for path in out.iterdir()} <= {*FGVC[name].holds, MARKER}
    assert left_behind(out) == [out]
    again = out.with_name('again')
    made(name, out, again)  # a folder that has it unpacked
    assert {p.relative_to(again) for p in again.rglob('*')} == {p.relative_to(out) for p in out.rglob('*')}


def test_the_published_numbers() -> None:
    numbers = {name: [split.images for split in FGVC[name].splits] for name in FILES}
    assert numbers == {
        'cub': [5994, 5794], 'nabirds': [23929, 24633], 'oxford-flowers': [1020, 1020, 6149],
        'stanford-dogs': [12000, 8580], 'stanford-cars': [8144, 8041],
    }  # fmt: skip
    assert [FGVC[name].classes for name in FILES] == [200, 555, 102, 120, 196]


def test_other_numbers_than_published(tmp_path: Path, out: Path) -> None:
    at = write_parts(tmp_path / 'files', FILES['nabirds']())
    with pytest.raises(e.CountError, match=r'NABirds has 3 images in its split train, expected 23929: fetch it again'):
        made('nabirds', at, out, allow_partial=False)
    fitting = dataclasses.replace(
        FGVC['nabirds'],
        splits=tuple(dataclasses.replace(s, images=n) for s, n in zip(FGVC['nabirds'].splits, (3, 1), strict=True)),
    )
    with pytest.raises(e.CountError, match='NABirds has 2 classes, expected 555'):
        prepare_set(fitting, out, '', at=at)
    assert left_behind(out) == []
    prepare_set(dataclasses.replace(fitting, classes=2), out, '', at=at)


def test_an_image_that_the_archive_lacks(tmp_path: Path, out: Path) -> None:
    members = nabirds()
    gone = next(name for name in members if name.endswith('.jpg'))
    del members[gone]
    with pytest.raises(e.LayoutError, match=rf'1 of the 3 images .* missing: {gone.removeprefix("nabirds/")}'):
        made('nabirds', write_parts(tmp_path / 'files', {'nabirds.tar.gz': members}), out)
    assert left_behind(out) == []


def test_a_missing_folder_and_a_missing_list(tmp_path: Path, out: Path) -> None:
    for part in ('images/', 'train_test_split.txt'):
        members = {name: data for name, data in nabirds().items() if part not in name}
        with pytest.raises(e.LayoutError, match=part.strip('/')):
            made('nabirds', write_parts(tmp_path / part[:6], {'nabirds.tar.gz': members}), out)
    assert left_behind(out) == []


@pytest.mark.parametrize('kept', [0.3, 0.9])
@pytest.mark.parametrize('name', ['nabirds.tar.gz', 'plain.tar'])
def test_a_truncated_tar(name: str, kept: float, tmp_path: Path, out: Path) -> None:
    whole = write_tar(tmp_path / name, nabirds())
    size = whole.stat().st_size
    # A plain tar is cut within a file; between two files it ends like a whole one, and the counts tell.
    data = whole.read_bytes()[: int(size * kept) if name.endswith('gz') else 512 + 100 + int(kept * 4) * 1024]
    whole.write_bytes(data)
    wanted = dataclasses.replace(FGVC['nabirds'], parts=(SourceFile(name, root='nabirds'),))
    with pytest.raises((e.CorruptArchiveError, e.LayoutError), match=r'fetch it again|missing|cannot be read'):
        prepare_set(wanted, out, '', at=tmp_path, allow_partial=True)
    assert left_behind(out) == []


def test_no_archive_at_all(tmp_path: Path, out: Path) -> None:
    (tmp_path / 'nabirds.tar.gz').write_bytes(b'<html>log in first</html>')
    with pytest.raises(e.CorruptArchiveError, match='is not a tar'):
        made('nabirds', tmp_path, out)
    with pytest.raises(e.LayoutError, match=r'lacks CUB_200_2011.tgz of CUB-200-2011: expected .*found nabirds.tar.gz'):
        made('cub', tmp_path, out)
    with pytest.raises(e.SourceUnavailableError, match='nowhere does not exist'):
        made('cub', tmp_path / 'nowhere', out)


@pytest.mark.parametrize('name', ['../evil.txt', '/etc/evil.txt', 'nabirds/../../evil.txt'])
def test_names_that_lead_outside(name: str, tmp_path: Path, out: Path) -> None:
    at = write_parts(tmp_path / 'files', {'nabirds.tar.gz': nabirds() | {name: b'evil'}})
    with pytest.raises(e.UnsafeArchiveError, match='which leads outside'):
        made('nabirds', at, out)
    assert not list(tmp_path.rglob('evil*'))


def test_links_are_left_out(tmp_path: Path, out: Path) -> None:
    at = tmp_path / 'nabirds.tar'
    write_tar(at, nabirds())
    with tarfile.open(at, 'a') as archive:
        link = tarfile.TarInfo('nabirds/images/link.jpg')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/hostname'
        archive.addfile(link)
    wanted = dataclasses.replace(FGVC['nabirds'], parts=(SourceFile('nabirds.tar', root='nabirds'),))
    prepare_set(wanted, out, '', at=at, allow_partial=True)
    assert not list(out.rglob('link*'))


def test_a_prepared_set_is_kept_unless_forced_and_anything_else_always(tmp_path: Path, out: Path) -> None:
    at = write_parts(tmp_path / 'files', FILES['nabirds']())
    made('nabirds', at, out)
    with pytest.raises(e.TargetError, match='add --force'):
        made('nabirds', at, out)
    made('nabirds', at, out, force=True)
    (out / 'thesis.tex').write_text('years of work')
    with pytest.raises(e.TargetError, match=r'added or changed since mmgps prepared it \(thesis\.tex\)'):
        made('nabirds', at, out, force=True)
    (out / MARKER).unlink()
    with pytest.raises(e.TargetError, match=r'holds files that mmgps did not make'):
        made('nabirds', at, out, force=True)


def test_downloaded_and_checked(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    content = write_tar(tmp_path / 'nabirds.tar.gz', nabirds()).read_bytes()
    with FileServer(content) as server:
        digest = Checksum('sha256', hashlib.sha256(content).hexdigest())
        part = SourceFile('nabirds.tar.gz', 'nabirds', url=server.url(), checksum=digest)
        wanted = dataclasses.replace(FGVC['nabirds'], parts=(part,))
        prepare_set(wanted, out, '', allow_partial=True)
        assert sorted(path.name for path in out.parent.iterdir()) == ['made', 'nabirds.tar.gz']
        prepare_set(wanted, out, '', allow_partial=True, force=True)
        assert len(server.requests) == 1
        server.content = content[:-1] + b'!'
        with pytest.raises(e.SourceUnavailableError, match=r'has sha256 .*--source FOLDER'):
            prepare_set(wanted, tmp_path / 'b/set', 'the command', allow_partial=True)
        assert left_behind(tmp_path / 'b/set') == []


def test_a_set_without_an_address_names_its_origin(tmp_path: Path) -> None:
    with pytest.raises(
        e.SourceUnavailableError, match=r'NABirds is missing .*dl.allaboutbirds.org.*\(the command\): --source FOLDER'
    ):
        prepare_set(FGVC['nabirds'], tmp_path / 'set', 'the command')


def test_vtab_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    at = write_zip(tmp_path / 'vtab-1k.zip', vtab('dtd') | vtab('kitti') | {'vtab-1k/readme.md': b'.'})
    arguments = ['prepare_vtab.py', '--source', str(at), '--out', str(tmp_path / 'vtab'), '--tasks', 'dtd']
    monkeypatch.setattr(sys, 'argv', [*arguments, '--allow-partial'])
    runpy.run_path(str(ROOT / 'tools/prepare_vtab.py'), run_name='__main__')
    assert '2 dtd/train800, 1 dtd/val200, 3 dtd/train800val200, 2 dtd/test' in capsys.readouterr().out
    assert {path.name for path in (tmp_path / 'vtab').iterdir()} == {'dtd', MARKER}
    sys.argv = [*arguments, '--force']
    with pytest.raises(SystemExit, match=r'CountError: VTAB-1k has 2 images in its split dtd/train800, expected 800'):
        runpy.run_path(str(ROOT / 'tools/prepare_vtab.py'), run_name='__main__')
    assert len(vtab_set().splits) == 19 * 4


def test_flowers17_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The lists follow a fixed rule: 40, 20 and 20 images of each class without overlap, and five of the 40."""
    pytest.importorskip('mmpretrain')
    paths = [f'{name}/image_{at:04}.jpg' for name in FLOWER_NAMES for at in range(80)]
    one = picture(0)
    at = write_folder(tmp_path / 'flowers', dict.fromkeys(paths, one))
    (at / 'labels.csv').write_text('\n'.join(f'{path},{path.partition("/")[0]}' for path in reversed(paths)))
    arguments = ['prepare_fgvc.py', 'oxford-flowers17', '--source', str(at), '--out', str(tmp_path / 'set')]
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(ROOT / 'tools/prepare_fgvc.py'), run_name='__main__')
    assert '680 train, 340 val, 340 test, 85 train5' in capsys.readouterr().out
    read = {s: (tmp_path / f'set/{s}.txt').read_text().splitlines() for s in ('train', 'val', 'test', 'train5')}
    assert sorted(line.split()[0] for s in ('train', 'val', 'test') for line in read[s]) == sorted(paths)
    assert set(Counter(line.split()[1] for line in read['test']).values()) == {20}
    assert set(read['train5']) < set(read['train'])
    assert read['train'][0].split()[1] == '0'
    first = sorted(paths[:80], key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    assert [line.split()[0] for line in read['test'][:20]] == first[:20]


def sparse_tar(path: Path, size: int) -> Path:
    """Write a GNU tar of a few KiB with a file that is one large hole."""
    with tarfile.open(path, 'w', format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo('CUB_200_2011/images/hole.jpg')
        info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        block[386:398], block[398:410] = b'%011o\0' % 0, b'%011o\0' % 512  # one piece of data, then the hole
        block[483:495] = b'%011o\0' % size
        block[148:156] = b' ' * 8
        block[148:156] = b'%06o\0 ' % sum(block)
        archive.fileobj.write(bytes(block) + b'x' * 512)  # type: ignore[union-attr]
        archive.offset += 1024
    return path


def test_archives_that_claim_more_than_images_take_are_not_unpacked(tmp_path: Path) -> None:
    size = 3 * 2**30
    hole = sparse_tar(tmp_path / 'hole.tar', size)
    with tarfile.open(hole) as archive:
        assert [member.size for member in archive] == [size]
    zeros = tmp_path / 'zeros.tar.gz'
    with tarfile.open(zeros, 'w:gz') as archive:
        for at in range(3):
            info = tarfile.TarInfo(f'images/{at}.jpg')
            info.size = 40 * 2**20
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    packed = tmp_path / 'zeros.zip'
    with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
        for at in range(3):
            archive.writestr(f'images/{at}.jpg', bytes(40 * 2**20))
    for at in (hole, zeros, packed):
        assert at.stat().st_size < 2**19
        with pytest.raises(e.UnsafeArchiveError, match=f'{at.name}.* would unpack to'):
            unpack(at, tmp_path / 'made')
        written = sum(path.stat().st_size for path in tmp_path.rglob('made/**/*') if path.is_file())
        assert written <= 80 * 2**20
