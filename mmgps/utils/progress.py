"""One line of progress on a text stream."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class ProgressLine:
    """Report progress on one line: rewritten in place on a terminal, a line per tenth in a log.

    Call an instance with the amount done so far and the total, ``None`` if the total is unknown.

    Args:
        label: The activity, for example ``'downloading kvasir-seg.zip'``.
        unit: Name of the counted unit.
        scale: Counted things per ``unit``, for example ``1e6`` for bytes shown as MB.
        stream: The stream to write to; standard error by default.
    """

    def __init__(self, label: str, unit: str, scale: float = 1.0, stream: TextIO | None = None) -> None:
        self.label = label
        self.unit = unit
        self.scale = scale
        self.stream = stream or sys.stderr
        self._shown: object = None

    def __call__(self, done: int, total: int | None) -> None:
        terminal = self.stream.isatty()
        seconds = 0.1 if terminal else 10
        step = 10 * done // total if total and not terminal else time.monotonic() // seconds
        if step != self._shown or done == total:
            self._shown = step
            self._write(done, total, terminal)

    def _write(self, done: int, total: int | None, terminal: bool) -> None:
        digits = 1 if self.scale != 1 else 0
        of = f'/{total / self.scale:.{digits}f}' if total else ''
        text = f'{self.label}: {done / self.scale:.{digits}f}{of} {self.unit}'
        self.stream.write(f'\r{text}\x1b[K' if terminal else f'{text}\n')
        if terminal and done == total:
            self.stream.write('\n')
        self.stream.flush()
