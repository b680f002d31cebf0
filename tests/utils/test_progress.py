"""One line of progress, on a terminal and in a log."""

import io

from mmgps.utils.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_per_tenth():
    stream = io.StringIO()
    line = ProgressLine('converting', 'images', stream=stream)
    for done in range(1, 201):
        line(done, 200)
    lines = stream.getvalue().splitlines()
    assert lines[0] == 'converting: 1/200 images'
    assert lines[1:] == [f'converting: {done}/200 images' for done in range(20, 201, 20)]


def test_a_terminal_line_is_rewritten_and_ended():
    stream = Terminal()
    line = ProgressLine('downloading', 'MB', 1e6, stream)
    for done in range(0, 46_000_000, 1_000):
        line(done, 46_000_000)
    line(46_000_000, 46_000_000)
    assert stream.getvalue().startswith('\rdownloading: 0.0/46.0 MB')
    assert stream.getvalue().endswith('\rdownloading: 46.0/46.0 MB\x1b[K\n')
    assert stream.getvalue().count('\n') == 1
    assert stream.getvalue().count('\r') < 1_000  # throttled


def test_an_unknown_total():
    stream = io.StringIO()
    line = ProgressLine('downloading', 'MB', 1e6, stream)
    for done in range(1_000_000, 1_002_000):
        line(done, None)
    assert 1 <= len(stream.getvalue().splitlines()) <= 2
    assert 'downloading: 1.0 MB' in stream.getvalue()
