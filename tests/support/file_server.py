"""File server on 127.0.0.1 with configurable faults."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves ``content`` at every path.

    Args:
        content: The file.
        ranges: True to honour ``Range``.
        cut_after: Bytes of a body after which the connection closes; None for the whole body.
        cuts: Number of answers to cut.
        linger: Seconds that a cut connection stays open in silence.
        status: Status of the first ``failures`` answers.
        failures: Number of answers with this status.
        pause: Seconds before each KiB.
        etag: Validator of the content.
        tls: ``ssl.SSLContext`` of the server; None for plain HTTP.
    """

    def __init__(
        self,
        content,
        *,
        ranges=True,
        cut_after=None,
        cuts=10**6,
        linger=0.0,
        status=200,
        failures=10**6,
        pause=0.0,
        etag='"v1"',
        tls=None,
    ):
        self.content, self.ranges, self.cut_after, self.cuts, self.linger = content, ranges, cut_after, cuts, linger
        self.status, self.failures, self.pause, self.etag, self.tls = status, failures, pause, etag, tls
        self.requests = []

    def __enter__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self)

            def log_message(self, *args):
                pass

        self.httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.httpd.daemon_threads = True
        self.httpd.handle_error = lambda *request: None  # the tests make clients hang up
        if self.tls:
            self.httpd.socket = self.tls.wrap_socket(self.httpd.socket, server_side=True)
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.httpd.shutdown()
        self.httpd.server_close()

    def url(self, name='file.bin'):
        scheme = 'https' if self.tls else 'http'
        return f'{scheme}://127.0.0.1:{self.httpd.server_port}/{name}'

    def answer(self, handler):
        self.requests.append(dict(handler.headers))
        if self.status != 200 and self.failures > 0:
            self.failures -= 1
            handler.send_error(self.status)
            return
        start = self.start_of(handler.headers)
        if start >= len(self.content) and start:
            handler.send_response(416)
            handler.send_header('Content-Range', f'bytes */{len(self.content)}')
            handler.send_header('Content-Length', '0')
            handler.end_headers()
            return
        self.send_head(handler, start)
        self.send_body(handler, self.content[start:])

    def start_of(self, headers):
        wanted = self.ranges and headers.get('If-Range', self.etag) == self.etag
        return int(headers['Range'][6:-1]) if wanted and 'Range' in headers else 0

    def send_head(self, handler, start):
        size = len(self.content)
        handler.send_response(206 if start else 200)
        handler.send_header('Content-Length', str(size - start))
        if start:
            handler.send_header('Content-Range', f'bytes {start}-{size - 1}/{size}')
        if self.etag:
            handler.send_header('ETag', self.etag)
        handler.end_headers()

    def send_body(self, handler, body):
        if self.cut_after is not None and self.cuts > 0:
            self.cuts -= 1
            self.write(handler, body[: self.cut_after])
            time.sleep(self.linger)
        else:
            self.write(handler, body)
        handler.close_connection = True

    def write(self, handler, body):
        for at in range(0, len(body), 1024):
            time.sleep(self.pause)
            handler.wfile.write(body[at : at + 1024])
            handler.wfile.flush()
