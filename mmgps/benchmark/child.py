"""Measure something in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

Found = TypeVar('Found')


def in_child(what: str, measure: Callable[..., Found], *args: Any) -> Found:
    """``measure(*args)`` in a fresh process, with as many threads as this one.

    Args:
        what: For the error.
        measure: A function of a module, since it is found again by its name.
        args: What it gets.

    Raises:
        RuntimeError: If the process failed.
    """
    context = multiprocessing.get_context('spawn')
    mine, its = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(its, torch.get_num_threads(), measure, *args))
    child.start()
    its.close()
    try:
        found: Found = mine.recv()
    except EOFError as error:
        raise RuntimeError(f'the process that measures {what} failed; its error stands above') from error
    finally:
        child.join()
    return found


def _answer(answer: Connection, threads: int, measure: Callable[..., Any], *args: Any) -> None:
    torch.set_num_threads(threads)
    answer.send(measure(*args))
