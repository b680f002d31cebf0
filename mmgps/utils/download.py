"""Download one file over HTTP: resumable, checked against a digest, and atomic. Standard library only."""

from __future__ import annotations

import hashlib
import os
import queue
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from .lock import one_at_a_time

CHUNK = 1 << 16
USER_AGENT = 'mmgps'  # some hosts refuse urllib's own name
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
NETWORK_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, HTTPException)

Progress = Callable[[int, 'int | None'], None]
"""Called with the bytes received so far and the total, ``None`` if the total is unknown."""


class DownloadError(RuntimeError):
    """A file could not be downloaded; the message names the address and the reason."""


class UnreachableError(DownloadError):
    """The server did not answer at all: no network, an unknown host, a closed port."""


class CertificateError(DownloadError):
    """The server's certificate cannot be verified."""


class RefusedError(DownloadError):
    """The server answered with an HTTP status other than success."""


class TimeLimitError(DownloadError):
    """The transfer did not finish within its time limit."""


class TruncatedError(DownloadError):
    """The transfer broke off, and further attempts received nothing more."""


class _BrokenOffError(Exception):
    """One attempt ended early after the server had answered; another may get further."""


@dataclass(frozen=True)
class Checksum:
    """The digest that a file must have.

    Args:
        algorithm: Name of a hash function of ``hashlib``, preferably ``'sha256'``.
        digest: The digest in lower-case hexadecimal.
    """

    algorithm: str
    digest: str

    def verify(self, path: Path) -> None:
        """Raise :class:`ChecksumError` unless the file at ``path`` has this digest."""
        with open(path, 'rb') as file:
            found = hashlib.file_digest(file, self.algorithm).hexdigest()
        if found != self.digest:
            raise ChecksumError(
                f'{path} ({path.stat().st_size} bytes) has {self.algorithm} {found}, expected {self.digest}: it is '
                'damaged or another version'
            )


class ChecksumError(RuntimeError):
    """A complete file has another digest than expected."""


def download(
    url: str,
    target: str | os.PathLike[str],
    checksum: Checksum | None = None,
    *,
    attempts: int = 4,
    timeout: float = 10.0,
    wait: float = 0.5,
    limit: float = 6 * 3600.0,
    progress: Progress | None = None,
) -> Path:
    """Download ``url`` to the file ``target``, which appears only when it is complete and checked.

    The bytes gather in ``target`` + ``.part``. A later call resumes from there if the server supports it and still has
    the same version (``Range`` with ``If-Range``); otherwise it starts over. A broken transfer is retried if the server
    has answered once in this call. An existing ``target`` is checked and kept. If several processes or threads want one
    ``target``, one downloads it and the others wait.

    Args:
        url: An ``http`` or ``https`` address.
        target: The file to create, with its folder.
        checksum: Expected digest; None accepts any content.
        attempts: Consecutive attempts without a new byte before giving up.
        timeout: Seconds without data from the server after which an attempt ends.
        wait: Seconds before the second attempt; doubled before each later one.
        limit: Seconds for all attempts together. The received bytes stay for the next call.
        progress: Called after each block.

    Returns:
        ``target`` as a path.

    Raises:
        ValueError: If ``url`` has another scheme.
        UnreachableError: If the server never answered.
        CertificateError: If its certificate could not be verified.
        RefusedError: If it answered with an error status, or redirects from https to another scheme.
        TimeLimitError: If the download takes longer than ``limit``.
        TruncatedError: If the transfer broke off ``attempts`` times in a row at the same place.
        ChecksumError: If the whole file, downloaded or existing, does not match ``checksum``.
    """
    if not re.match('https?://', url):
        raise ValueError(f'cannot download {url!r}: expected an address that begins with http:// or https://')
    target = Path(target)
    if _is_there(target, checksum):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target):
        if not _is_there(target, checksum):
            part = PartialFile(target)
            _fetch_whole(url, part, attempts, timeout, wait, limit, progress or (lambda done, total: None))
            part.accept(url, checksum)
    return target


def _is_there(target: Path, checksum: Checksum | None) -> bool:
    if target.exists() and checksum:
        checksum.verify(target)
    return target.exists()


def _fetch_whole(
    url: str, part: PartialFile, attempts: int, timeout: float, wait: float, limit: float, progress: Progress
) -> None:
    """Make attempts until the part is whole; an attempt that brings new bytes resets the count."""
    furthest, failures, answered, start = part.size(), 0, False, time.monotonic()

    def in_time(done: int, total: int | None) -> None:
        if time.monotonic() - start > limit:
            raise TimeLimitError(
                f'{url} brought {done} bytes of {total or "an unknown number"} in {limit:g} s and was given up; they '
                f'are kept in {part.path}, and the next call continues from there if the server supports it'
            )

    def proceed(done: int, total: int | None) -> None:
        in_time(done, total)
        progress(done, total)

    while True:
        try:
            return _attempt(url, part, timeout, start + limit - time.monotonic(), proceed)
        except _BrokenOffError as error:
            answered, reason = True, error
        except NETWORK_ERRORS as error:
            _raise_if_final(url, error, answered)
            reason = _BrokenOffError(f'{type(error).__name__}: {error}')
        failures = 1 if part.size() > furthest else failures + 1
        furthest = max(furthest, part.size())
        in_time(furthest, None)
        if failures >= attempts:
            raise TruncatedError(
                f'{url}: stopped at {furthest} bytes after {failures} attempts without a new byte ({reason})'
            )
        time.sleep(wait * 2 ** (failures - 1))


def _attempt(url: str, part: PartialFile, timeout: float, left: float, progress: Progress) -> None:
    headers = {'User-Agent': USER_AGENT, 'Accept-Encoding': 'identity', **part.headers()}
    # A new opener reads the current proxy settings; urlopen keeps those of its first call in the process.
    opener = urllib.request.build_opener(_NoDowngrade)
    try:
        with _answer(opener, urllib.request.Request(url, headers=headers), timeout, left) as response:
            _receive(response, part, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get('Content-Range') == f'bytes */{part.size()}':
            return  # the part was whole already
        if error.code == 416:
            part.discard()
        elif error.code not in RETRIED:
            raise RefusedError(f'{url} answered {error.code} {error.reason}') from error
        raise _BrokenOffError(f'{error.code} {error.reason}') from error


def _answer(opener: Any, request: urllib.request.Request, timeout: float, left: float) -> Any:
    """The response with its headers, within ``left`` seconds, since a server may send headers byte by byte for days."""
    found: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            found.put(opener.open(request, timeout=timeout))
        except Exception as error:
            found.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = found.get(timeout=max(left, 0.0))
    except queue.Empty:
        raise _BrokenOffError('no whole answer in time') from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https, and from https to nothing but https."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        allowed = ('https',) if req.type == 'https' else ('http', 'https')
        if newurl.partition(':')[0].lower() not in allowed:
            raise RefusedError(
                f'{req.full_url} redirects to {newurl}, which was not followed: expected {" or ".join(allowed)}'
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _raise_if_final(url: str, error: Exception, answered: bool) -> None:
    cause: Any = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        raise CertificateError(
            f'the certificate of {url} could not be verified ({cause.verify_message}). Some servers leave out an '
            'intermediate certificate that browsers find by themselves: try to download the file with a browser'
        ) from error
    if not answered:
        raise UnreachableError(f'{url} could not be reached: {cause}') from error


def _receive(response: HTTPResponse, part: PartialFile, progress: Progress) -> None:
    """Append the body to the part, or start the part over if the server sends the whole file."""
    done, total = _span(response, part)
    part.remember(response)
    with open(part.path, 'ab' if done else 'wb') as file:
        while block := _read(response):
            file.write(block)
            done += len(block)
            progress(done, total)
    if total is not None and done != total:
        raise _BrokenOffError(f'{done} of {total} bytes received')


def _span(response: HTTPResponse, part: PartialFile) -> tuple[int, int | None]:
    """First byte of the body within the file, and the size of the file if announced."""
    if response.status != 206:
        length = response.headers.get('Content-Length')
        return 0, int(length) if length else None
    header = response.headers.get('Content-Range', '')
    match = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', header)
    if not match or int(match[1]) != part.size():
        part.discard()
        raise _BrokenOffError(f'unusable Content-Range {header!r}')
    return int(match[1]), None if match[2] == '*' else int(match[2])


def _read(response: HTTPResponse) -> bytes:
    # read1, not read: it returns the bytes of a slow server as they come, and the timeout counts from the last one.
    try:
        return response.read1(CHUNK)
    except (OSError, HTTPException) as error:
        raise _BrokenOffError(f'{type(error).__name__}: {error}') from error


class PartialFile:
    """The unfinished file beside the target, with the validator of its version.

    Bytes are appended only if the server confirms the validator, so two versions of a file are never joined.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f'{target.name}.part')
        self.tag = target.with_name(f'{target.name}.part.tag')

    def size(self) -> int:
        """Number of bytes received."""
        return self.path.stat().st_size if self.path.exists() else 0

    def headers(self) -> dict[str, str]:
        """Request headers for the rest of the file; none if it cannot be appended safely."""
        if not self.size() or not self.tag.exists():
            return {}
        return {'Range': f'bytes={self.size()}-', 'If-Range': self.tag.read_text()}

    def remember(self, response: HTTPResponse) -> None:
        """Store the validator of the version in ``response``."""
        etag = response.headers.get('ETag', '')
        # RFC 9110 forbids weak tags in If-Range, since they do not promise equal bytes.
        validator = etag if etag.startswith('"') else response.headers.get('Last-Modified', '')
        if validator:
            self.tag.write_text(validator)
        else:
            self.tag.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was received."""
        self.path.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def accept(self, url: str, checksum: Checksum | None) -> None:
        """Check the complete file and move it to its final name; remove a file that fails."""
        try:
            if checksum:
                checksum.verify(self.path)
        except ChecksumError as error:
            self.discard()
            raise ChecksumError(f'the file from {url} was removed: {error}') from None
        os.replace(self.path, self.target)
        self.tag.unlink(missing_ok=True)
