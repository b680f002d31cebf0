"""Files that appear whole or not at all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shifted import trained

from mmgps.delta import save_delta
from mmgps.selection import Selection, save_selection
from mmgps.utils.atomic_file import atomic_file, check_apart, skipped_if_unwritable, write_atomically


def write_half(target: Path) -> None:
    with atomic_file(target) as partial:
        partial.write_bytes(b'half')
        raise ZeroDivisionError


def test_the_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / 'folder/file'
    write_atomically(target, b'old')
    with pytest.raises(ZeroDivisionError):
        write_half(target)
    assert target.read_bytes() == b'old'
    assert list(target.parent.iterdir()) == [target]


def test_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    flush, move = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        done.append(Path(os.readlink(f'/proc/self/fd/{descriptor}')).name)
        flush(descriptor)

    def moved(source: Path, target: Path) -> None:
        done.append('moved')
        move(source, target)

    monkeypatch.setattr(os, 'fsync', flushed)
    monkeypatch.setattr(os, 'replace', moved)
    with atomic_file(tmp_path / 'file', alone=True) as partial:
        partial.write_bytes(b'new')
    assert done == ['.file.part', 'moved', tmp_path.name]
    assert (tmp_path / 'file').read_bytes() == b'new'


def test_a_folder_that_cannot_be_flushed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def refused(descriptor: int) -> None:
        if Path(f'/proc/self/fd/{descriptor}').is_dir():
            raise OSError('not of a folder')
        flush(descriptor)

    monkeypatch.setattr(os, 'fsync', refused)
    write_atomically(tmp_path / 'file', b'new')
    assert (tmp_path / 'file').read_bytes() == b'new'


def test_a_disk_that_is_full_when_flushed_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / 'file', b'old')

    def full(descriptor: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        write_atomically(tmp_path / 'file', b'new')
    assert (tmp_path / 'file').read_bytes() == b'old'


@pytest.mark.parametrize('umask', [0o022, 0o077, 0o002])
def test_the_mode_is_that_of_any_new_file(umask: int, tmp_path: Path) -> None:
    """safetensors creates files with mode 0600, so others in the group could not read a delta."""
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / 'file', b'new')
        save_selection(Selection('bias', {}, (), 'x'), tmp_path / 'selection')
        save_delta(trained()[1], tmp_path / 'delta')
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(('file', 'selection', 'delta'), 0o666 & ~umask)


def test_what_killed_processes_left_goes_with_the_next_save(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    stays = [f'.other.{os.getppid()}.part', '.file.part', 'file.123.part', '.file.x.part']
    for name in (f'.file.{gone.pid}.part', f'.other.name.{gone.pid}.part', '.file.99999999999999999999.part', *stays):
        (tmp_path / name).write_bytes(b'half')
    write_atomically(tmp_path / 'file', b'new')
    assert {path.name for path in tmp_path.iterdir()} == {'file', *stays}


def test_a_process_that_is_killed_leaves_what_the_next_removes(tmp_path: Path) -> None:
    code = (
        'import os, signal, sys; from mmgps.utils.atomic_file import atomic_file\n'
        'with atomic_file(sys.argv[1]) as partial: partial.write_bytes(b"half"); os.kill(os.getpid(), signal.SIGKILL)'
    )
    environment = {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, '-c', code, str(tmp_path / 'file')], env=environment)
    [left] = tmp_path.iterdir()
    assert left.name.startswith('.file.')
    write_atomically(tmp_path / 'file', b'whole')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    def write_too_much() -> None:
        with atomic_file(tmp_path / 'file'):
            raise OSError(28, 'No space left on device')

    with pytest.raises(OSError, match=r'No space left on device: .*/file was not written') as caught:
        write_too_much()
    assert caught.value.errno == 28
    said: list[str] = []
    with skipped_if_unwritable(said.append):
        write_too_much()
    assert len(said) == 1
    assert re.search(r'/file was not written; going on without it', said[0])


def test_an_output_is_no_input_under_whatever_name(tmp_path: Path) -> None:
    source = tmp_path / 'source'
    source.write_bytes(b'x')
    (tmp_path / 'soft').symlink_to(source)
    (tmp_path / 'hard').hardlink_to(source)
    (tmp_path / 'folder').symlink_to(tmp_path)
    for name in ('source', 'soft', 'hard', 'folder/source', 'folder/hard', './source'):
        with pytest.raises(ValueError, match=r'would overwrite .*source'):
            check_apart(tmp_path / name, tmp_path / 'unrelated', source)
    check_apart(tmp_path / 'new', source)
