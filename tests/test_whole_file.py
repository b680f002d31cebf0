"""Files that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from mmgps.whole_file import whole_file, write_whole


def write_half(target: Path) -> None:
    with whole_file(target) as partial:
        partial.write_bytes(b'half')
        raise ZeroDivisionError


def test_the_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / 'folder/file'
    write_whole(target, b'old')
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
    with whole_file(tmp_path / 'file', alone=True) as partial:
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
    write_whole(tmp_path / 'file', b'new')
    assert (tmp_path / 'file').read_bytes() == b'new'


def test_a_disk_that_is_full_when_flushed_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / 'file', b'old')

    def full(descriptor: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        write_whole(tmp_path / 'file', b'new')
    assert (tmp_path / 'file').read_bytes() == b'old'
