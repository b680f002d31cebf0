"""Read the files of a zip or a folder through one interface, and unpack archives of images safely."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from mmgps.utils.download import Progress

from .errors import CorruptArchiveError, SourceUnavailableError, UnsafeArchiveError

JUNK = frozenset({'__MACOSX', '.DS_Store', 'Thumbs.db'})
EXPANSION, ALLOWANCE = 100, 64 * 2**20
"""An archive of images may unpack to this multiple of its size plus this many bytes, since images hardly shrink."""
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


def check_expansion(at: Path, size: int, unpacked: int) -> None:
    """Raise :class:`UnsafeArchiveError` if the archive ``at`` of ``size`` bytes declares more content than images have.

    ``unpacked`` is the declared size of the content read so far, in bytes.
    """
    if unpacked > EXPANSION * size + ALLOWANCE:
        raise UnsafeArchiveError(
            f'{at} ({size:,} bytes) would unpack to {unpacked:,} bytes or more; expected at most {EXPANSION} times its '
            'size, as for images: do not use this file, or unpack it yourself and give the folder'
        )


@dataclass(frozen=True)
class Files:
    """Files under one root.

    Args:
        at: The zip or the folder.
        names: Paths of all files relative to the root, with ``/``, without files that operating systems add.
        read: Function that reads the file called ``name``.
    """

    at: Path
    names: list[str]
    read: Callable[[str], bytes]


@contextmanager
def open_files(at: str | Path) -> Iterator[Files]:
    """Open a zip file or a folder for reading.

    Raises:
        SourceUnavailableError: If ``at`` does not exist.
        CorruptArchiveError: If it is a file but not a complete zip.
        UnsafeArchiveError: If a name in the zip leads outside, or its content is larger than images can be.
    """
    at = Path(at)
    if at.is_dir():
        found: Iterable[str] = (path.relative_to(at).as_posix() for path in at.rglob('*') if path.is_file())
        yield Files(at, _sorted(found), lambda name: (at / name).read_bytes())
    elif at.is_file():
        with _open_zip(at) as archive:
            check_expansion(at, at.stat().st_size, sum(info.file_size for info in archive.infolist()))
            found = [info.filename for info in archive.infolist() if not info.is_dir()]
            for name in found:
                _check_inside(at, name, forbidden='\\:')
            yield Files(at, _sorted(found), partial(_read_member, at, archive))
    else:
        raise SourceUnavailableError(f'{at} does not exist: expected a zip file or a folder')


def _open_zip(at: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(at)
    except zipfile.BadZipFile as error:
        with open(at, 'rb') as file:
            cut_off = file.read(2) == b'PK'
        remedy = (
            'it begins like a zip and is cut off: fetch it again'
            if cut_off
            else 'expected a zip; unpack other archives yourself and give the folder'
        )
        raise CorruptArchiveError(f'{at} ({at.stat().st_size} bytes) cannot be read: {error}; {remedy}') from error


def _read_member(at: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise CorruptArchiveError(f'{name} in {at} cannot be read: {error}; fetch the archive again') from error


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not is_junk(name))


def is_junk(name: str) -> bool:
    """Return True if ``name`` is a file that operating systems add."""
    parts = PurePosixPath(name).parts
    return bool(JUNK.intersection(parts)) or parts[-1].startswith('._')


def unpack(
    at: Path, into: Path, root: str = '', holds: Collection[str] | None = None, progress: Progress | None = None
) -> int:
    """Write the files of ``at`` into the folder ``into``, leaving out the links and devices of a tar.

    Args:
        at: A zip, a tar with any compression, or a folder.
        into: Folder to write to; created if missing.
        root: Folder within ``at`` whose content is written.
        holds: Names directly below ``root`` to write; None for all.
        progress: Called with the number of files done.

    Returns:
        Number of files.

    Raises:
        CorruptArchiveError: If ``at`` is truncated, damaged or not an archive.
        UnsafeArchiveError: If a name in it leads outside, or its content is larger than images can be.
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


def _members(at: Path) -> Iterator[tuple[str, bytes]]:
    if at.is_file() and tarfile.is_tarfile(at):
        yield from _tar_members(at)
    elif (at.is_file() and '.tar' in at.suffixes) or at.suffix == '.tgz':
        raise CorruptArchiveError(
            f'{at} ({at.stat().st_size} bytes) is not a tar, or is cut off at its beginning: fetch it again'
        )
    else:
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


def _check_inside(at: Path, name: str, forbidden: str = '\\') -> None:
    if name.startswith('/') or not set(name).isdisjoint(forbidden) or '..' in name.split('/'):
        raise UnsafeArchiveError(f'{at} holds the name {name!r}, which leads outside: do not use this file')


def _below(name: str, root: str) -> PurePosixPath | None:
    """Return the path of ``name`` relative to ``root``; None if it is not below ``root`` or is junk."""
    path = PurePosixPath(name)
    inside = path.is_relative_to(root) and path != PurePosixPath(root)
    return path.relative_to(root) if inside and not is_junk(name) else None
