"""Unpack a zip or a tar, or copy a folder, without ever writing outside of the target."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from mmgps.datasets.prepare.errors import CorruptArchiveError, UnsafeArchiveError
from mmgps.datasets.prepare.files import JUNK, check_expansion, open_files
from mmgps.utils.download import Progress

DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


def unpack(
    at: Path, into: Path, root: str = '', holds: Collection[str] | None = None, progress: Progress | None = None
) -> int:
    """Write the files of ``at`` into the folder ``into``.

    Of a tar only regular files are taken: its links and devices are left out.

    Args:
        at: A zip, a tar with any compression, or a folder.
        into: Made where missing.
        root: Folder within ``at`` whose content is taken; the rest is left out.
        holds: Names directly below ``root`` that are taken; None for all.
        progress: Called with the files done.

    Returns:
        Number of files.

    Raises:
        CorruptArchiveError: If ``at`` is truncated, damaged or no archive.
        UnsafeArchiveError: If a name in it points outside, or if it unpacks to more than images can.
    """
    done = 0
    for name, data in _members(at):
        inner = _below(name, root)
        if inner is None or (holds is not None and inner.parts[0] not in holds):
            continue
        target = into / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        done += 1
        if progress:
            progress(done, None)
    return done


def copy(at: Path, into: Path) -> None:
    """Copy one file into a folder, which is made where missing."""
    into.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(at, into / at.name)


def _members(at: Path) -> Iterator[tuple[str, bytes]]:
    if at.is_file() and tarfile.is_tarfile(at):
        yield from _tar_members(at)
        return
    if (at.is_file() and '.tar' in at.suffixes) or at.suffix == '.tgz':
        raise CorruptArchiveError(
            f'{at} ({at.stat().st_size} bytes) is no tar, or is cut off at its beginning: fetch it again'
        )
    with open_files(at) as files:
        for name in files.names:
            yield name, files.read(name)


def _tar_members(at: Path) -> Iterator[tuple[str, bytes]]:
    size, unpacked = at.stat().st_size, 0
    try:
        with tarfile.open(at) as archive:
            for member in archive:
                if member.isfile():
                    _check_inside(at, member.name)
                    unpacked += member.size
                    check_expansion(at, size, unpacked)
                    file = archive.extractfile(member)
                    data = file.read() if file else b''
                    if len(data) != member.size:
                        raise EOFError(f'{member.name} ends after {len(data)} of {member.size} bytes')
                    yield member.name.removeprefix('./'), data
    except DAMAGED as error:
        raise CorruptArchiveError(
            f'{at} ({at.stat().st_size} bytes) cannot be read to its end: {error}; fetch it again'
        ) from error


def _check_inside(at: Path, name: str) -> None:
    if name.startswith('/') or '\\' in name or '..' in name.split('/'):
        raise UnsafeArchiveError(f'{at} holds the name {name!r}, which leads outside: do not use this file')


def _below(name: str, root: str) -> PurePosixPath | None:
    """The path of ``name`` from ``root``; None for what is not below it, and for what operating systems strew."""
    path = PurePosixPath(name)
    if JUNK.intersection(path.parts) or path.name.startswith('._'):
        return None
    return path.relative_to(root) if path.is_relative_to(root) and path != PurePosixPath(root) else None
