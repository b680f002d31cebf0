"""Raise exceptions at every line or operation of a call."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

import mmgps

PACKAGE = str(Path(mmgps.__file__).parent)


class Interrupt(KeyboardInterrupt):
    """Ctrl-C at one line or instruction."""


class OutOfMemory(torch.OutOfMemoryError):
    """Lack of memory at one operation of torch."""


class AtLine:
    """Raises at the ``count``-th line or instruction of mmgps that runs within the context.

    Attributes:
        place: File and line of the exception; None if fewer lines ran.
        seen: Number of lines or instructions that ran.
    """

    def __init__(self, count: int, event: str = 'line') -> None:
        self.count, self.event = count, event
        self.seen, self.place = 0, None

    def __enter__(self) -> AtLine:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = self.event == 'opcode'
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == self.event and self.place is None:
            self.seen += 1
            if self.seen == self.count:
                self.place = f'{Path(frame.f_code.co_filename).name}:{frame.f_lineno}'
                raise Interrupt(self.place)
        return self._step


class AtOperation(TorchFunctionMode):
    """Raises at the ``count``-th operation of torch within the context. See :class:`AtLine`."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.seen, self.place = count, 0, None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch._C._set_grad_enabled:  # takes no memory
            return function(*args)
        self.seen += self.place is None
        if self.seen == self.count and self.place is None:
            self.place = getattr(function, '__name__', str(function))
            raise OutOfMemory(self.place)
        return function(*args, **(kwargs or {}))


def interrupted(kind: Callable[[int], Any], work: Callable[[], Any], most: int) -> Iterator[str]:
    """Run ``work`` about ``most`` times, interrupted at evenly spaced places.

    Yields:
        The place of each interruption, after ``work`` has raised.
    """
    with kind(0) as counting:
        work()
    step = max(1, counting.seen // most)
    for count in range(1, counting.seen + 1, step):
        with kind(count) as stop, contextlib.suppress(Interrupt, OutOfMemory):
            work()
        if stop.place is not None:
            yield stop.place


def bits_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
