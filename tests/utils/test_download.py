"""The downloader against servers that behave and servers that do not."""

import hashlib
import os
import random
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.file_server import FileServer

from mmgps.utils.download import (
    CertificateError,
    Checksum,
    ChecksumError,
    RefusedError,
    TimeLimitError,
    TruncatedError,
    UnreachableError,
    download,
)

CONTENT = random.Random(7).randbytes(50_000)
SHA256 = Checksum('sha256', hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')


def fetch(server, target, checksum=SHA256, **options):
    return download(server.url(), target, checksum, **{'wait': 0.01, 'timeout': 2.0, **options})


def leftovers(target):
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_whole_file_with_progress(tmp_path):
    seen = []
    target = tmp_path / 'deep' / 'file.bin'
    with FileServer(CONTENT) as server:
        assert fetch(server, target, progress=lambda done, total: seen.append((done, total))) == target
    assert target.read_bytes() == CONTENT
    assert leftovers(target) == []
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_what_is_there_is_kept_and_checked(tmp_path):
    target = tmp_path / 'file.bin'
    target.write_bytes(CONTENT)
    with FileServer(b'something else') as server:
        fetch(server, target)
        assert server.requests == []
    target.write_bytes(b'damaged')
    with FileServer(CONTENT) as server, pytest.raises(ChecksumError, match=r'file\.bin \(7 bytes\) has sha256'):
        fetch(server, target)
    assert target.read_bytes() == b'damaged'


def test_broken_transfers_are_taken_up_where_they_broke(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, cut_after=4_000) as server:  # 13 answers, far more than `attempts`
        fetch(server, target, attempts=2, wait=0.0)
    assert target.read_bytes() == CONTENT
    assert [request.get('Range') for request in server.requests[:3]] == [None, 'bytes=4000-', 'bytes=8000-']
    assert {request.get('If-Range') for request in server.requests[1:]} == {'"v1"'}


def test_a_later_call_resumes(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, cut_after=9_000) as server, pytest.raises(TruncatedError):
        fetch(server, target, attempts=1)
    assert not target.exists()
    assert (tmp_path / 'file.bin.part').stat().st_size == 9_000
    seen = []
    with FileServer(CONTENT) as server:
        fetch(server, target, progress=lambda done, total: seen.append(done))
        assert server.requests[0]['Range'] == 'bytes=9000-'
    assert target.read_bytes() == CONTENT
    assert seen[0] > 9_000
    assert leftovers(target) == []


def test_another_version_is_never_joined_to_the_first(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(bytes(len(CONTENT)), cut_after=9_000) as server, pytest.raises(TruncatedError):
        fetch(server, target, attempts=1)
    with FileServer(CONTENT, etag='"v2"') as server:
        fetch(server, target, checksum=None)
        assert server.requests[0]['If-Range'] == '"v1"'
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize('etag', ['', 'W/"weak"'])
def test_without_a_strong_validator_it_starts_over(tmp_path, etag):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, cut_after=9_000, cuts=1, etag=etag) as server:
        fetch(server, target)
        assert [request.get('Range') for request in server.requests] == [None, None]
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_whole_is_accepted(tmp_path):
    target = tmp_path / 'file.bin'
    (tmp_path / 'file.bin.part').write_bytes(CONTENT)
    (tmp_path / 'file.bin.part.tag').write_text('"v1"')
    with FileServer(CONTENT) as server:
        fetch(server, target)
        assert len(server.requests) == 1
    assert target.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(tmp_path):
    target = tmp_path / 'file.bin'
    (tmp_path / 'file.bin.part').write_bytes(CONTENT + b'x')
    (tmp_path / 'file.bin.part.tag').write_text('"v1"')
    with FileServer(CONTENT) as server:
        fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_ignores_range(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, ranges=False, cut_after=9_000, cuts=1) as server:
        fetch(server, target)
        assert [request.get('Range') for request in server.requests] == [None, 'bytes=9000-']
    assert target.read_bytes() == CONTENT


def test_a_server_that_truncates_for_ever(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, ranges=False, cut_after=9_000) as server:
        with pytest.raises(
            TruncatedError, match=r'stopped at 9000 bytes after 3 attempts without a new byte .*9000 of 50000'
        ):
            fetch(server, target, attempts=3)
        assert len(server.requests) == 3
    assert not target.exists()


def test_a_slow_server_is_waited_for(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT[:10_240], pause=0.12) as server:  # 1.2 s in all, the timeout counts from the last byte
        fetch(server, target, checksum=None, timeout=1.0)
        assert len(server.requests) == 1
    assert target.read_bytes() == CONTENT[:10_240]


def test_a_stalling_server_is_given_up(tmp_path):
    with FileServer(CONTENT, pause=5.0) as server:
        start = time.monotonic()
        with pytest.raises(TruncatedError, match='TimeoutError'):
            fetch(server, tmp_path / 'file.bin', attempts=2, timeout=0.5)
    assert time.monotonic() - start < 5


def test_what_came_before_a_stall_is_kept(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, cut_after=3_000, cuts=1, linger=3.0) as server:
        fetch(server, target, timeout=0.5)
        assert server.requests[1]['Range'] == 'bytes=3000-'
    assert target.read_bytes() == CONTENT


def test_not_found_is_not_retried(tmp_path):
    with FileServer(CONTENT, status=404) as server:
        with pytest.raises(RefusedError, match=r'file\.bin answered 404 Not Found'):
            fetch(server, tmp_path / 'file.bin')
        assert len(server.requests) == 1
    assert leftovers(tmp_path / 'file.bin') == []


def test_a_busy_server_is_asked_again(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, status=503, failures=2) as server:
        fetch(server, target)
        assert len(server.requests) == 3
    assert target.read_bytes() == CONTENT


def test_an_absent_server_is_named_at_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=f'127.0.0.1:{port}/f could not be reached'):
        download(f'http://127.0.0.1:{port}/f', tmp_path / 'f')
    assert time.monotonic() - start < 3


def test_a_server_that_goes_away_half_way(tmp_path):
    target = tmp_path / 'file.bin'
    server = FileServer(CONTENT, cut_after=9_000)
    with server:
        url = server.url()

        def leave(done, total):
            if done >= 9_000:
                server.httpd.socket.close()

        with pytest.raises(TruncatedError, match='stopped at 9000 bytes'):
            download(url, target, SHA256, attempts=2, wait=0.01, timeout=1.0, progress=leave)
    assert not target.exists()


def test_wrong_content_is_removed(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(b'an error page with status 200') as server, pytest.raises(ChecksumError, match='was removed'):
        fetch(server, target)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_network_error(tmp_path):
    if not os.path.exists('/dev/full'):
        pytest.skip('this system has no /dev/full')
    (tmp_path / 'file.bin.part').symlink_to('/dev/full')
    with FileServer(CONTENT) as server:
        with pytest.raises(OSError, match='No space left'):
            fetch(server, tmp_path / 'file.bin')
        assert len(server.requests) == 1


def test_other_schemes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot download 'file:///etc/hosts'"):
        download('file:///etc/hosts', tmp_path / 'hosts')


def tls_context(folder):
    """The context of a server with its own certificate, ``cert.pem`` in ``folder``."""
    key, cert = folder / 'key.pem', folder / 'cert.pem'
    command = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-subj', '/CN=127.0.0.1']
    command += ['-addext', 'subjectAltName=IP:127.0.0.1']
    try:
        subprocess.run([*command, '-keyout', key, '-out', cert], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip('needs the openssl program')
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def test_an_untrusted_certificate_is_named(tmp_path):
    context = tls_context(tmp_path)
    with FileServer(CONTENT, tls=context) as server, pytest.raises(CertificateError, match='could not be verified'):
        fetch(server, tmp_path / 'file.bin')


def test_a_trickle_ends_in_time_and_is_gone_on_from(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, pause=0.05) as server:
        begin = time.monotonic()
        with pytest.raises(TimeLimitError, match=r'of 50000 in 0\.4 s and was given up'):
            fetch(server, target, limit=0.4)
        assert time.monotonic() - begin < 2
        assert not target.exists()
        server.pause = 0.0
        fetch(server, target)
        assert 'Range' in server.requests[-1]
    assert target.read_bytes() == CONTENT


def test_a_server_that_brings_a_little_for_ever_ends_in_time(tmp_path):
    with FileServer(CONTENT, cut_after=1, pause=0.05) as server, pytest.raises(TimeLimitError):
        fetch(server, tmp_path / 'file.bin', limit=0.5)


class Redirecting:
    """Answers every request with a redirect."""

    def __init__(self, to, tls=None):
        self.server = FileServer(b'', tls=tls)
        self.server.answer = lambda handler: (
            handler.send_response(302),
            handler.send_header('Location', to),
            handler.send_header('Content-Length', '0'),
            handler.end_headers(),
        )


@pytest.mark.parametrize('to', ['ftp://127.0.0.1/file', 'file:///etc/hostname', 'data:,x', 'http'])
@pytest.mark.parametrize('secure', [False, True])
def test_redirects_that_are_not_followed(to, secure, tmp_path, monkeypatch):
    if to == 'http' and not secure:
        return  # is followed, see below
    tls = tls_context(tmp_path) if secure else None
    monkeypatch.setenv('SSL_CERT_FILE', str(tmp_path / 'cert.pem'))
    with FileServer(CONTENT) as plain, Redirecting(plain.url() if to == 'http' else to, tls).server as server:
        with pytest.raises(RefusedError, match=r'redirects to .*, which was not followed|answered 302'):
            fetch(server, tmp_path / 'file.bin')
        assert plain.requests == []
    assert not (tmp_path / 'file.bin').exists()


def test_a_redirect_from_http_is_followed(tmp_path):
    with FileServer(CONTENT) as plain, Redirecting(plain.url()).server as server:
        fetch(server, tmp_path / 'file.bin')
    assert (tmp_path / 'file.bin').read_bytes() == CONTENT


def test_several_that_want_one_file_get_it_from_one_transfer(tmp_path):
    target = tmp_path / 'file.bin'
    with FileServer(CONTENT, pause=0.002) as server, ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: fetch(server, target).read_bytes(), range(12)))
        assert len(server.requests) == 1
    assert found == [CONTENT] * 12
    assert leftovers(target) == []


def test_processes_that_want_one_file_wait_for_each_other(tmp_path):
    code = 'import sys; from mmgps.utils.download import download; download(sys.argv[1], sys.argv[2])'
    with FileServer(CONTENT, pause=0.01) as server:
        command = [sys.executable, '-c', code, server.url(), str(tmp_path / 'file.bin')]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        running = [subprocess.Popen(command, env=environment) for _ in range(4)]
        assert [process.wait() for process in running] == [0] * 4
        assert len(server.requests) == 1
    assert (tmp_path / 'file.bin').read_bytes() == CONTENT
    assert leftovers(tmp_path / 'file.bin') == []


def test_headers_that_come_byte_by_byte_end_in_time(tmp_path):
    def drip(handler):
        for byte in b'HTTP/1.1 200 OK\r\nX-Long: ' + b'x' * 1000:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.05)

    with FileServer(CONTENT) as server:
        server.answer = drip
        begin = time.monotonic()
        with pytest.raises(TimeLimitError):
            fetch(server, tmp_path / 'file.bin', limit=0.4)
        assert time.monotonic() - begin < 2
