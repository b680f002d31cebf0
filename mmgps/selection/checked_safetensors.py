"""Safetensors files with a description and a digest: a damaged or altered file is refused.

Reading executes no code. The metadata hold one envelope: the description as JSON, and a SHA-256 digest of the
description and of the names, types and bits of all tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmgps.utils.atomic_file import atomic_file

from .fingerprint import bits

MAX_DEPTH = 100
CHECKPOINTS = (b'PK\x03\x04', b'\x80\x02')
"""First bytes of the files of ``torch.save``, today and before torch 1.6."""


class IntegrityError(ValueError):
    """A file or checkpoint does not hold what was written."""


def add_digest(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The envelope of ``content`` (JSON values with a ``format_version``) and ``tensors``, with their digest.

    The digest covers the names, types and bits of the tensors. Their shapes belong in ``content``.
    """
    text = json.dumps(content, sort_keys=True)
    return json.dumps({'content': text, 'sha256': _digest(text, tensors)})


def check_digest(envelope: Any, tensors: Any, kind: str, format_version: int) -> dict[str, Any]:
    """The content of ``envelope``, after comparing its digest with ``tensors``.

    Args:
        envelope: The string that :func:`add_digest` returned.
        tensors: The tensors that were written with it, by name.
        kind: Kind of file, for messages.
        format_version: The version that the caller reads.

    Raises:
        IntegrityError: Says what is wrong.
    """
    _check_tensors(tensors)
    try:
        packed = json.loads(envelope)
        text, digest = packed['content'], packed['sha256']
        content = json.loads(text)
        version = content['format_version']
        whole = digest == _digest(text, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # too deep for json: RuntimeError
        raise IntegrityError(f'it holds no description of a {kind}') from error
    if not whole:
        raise IntegrityError('its content does not match its digest; it was altered or damaged')
    if _nested(content):
        raise IntegrityError(f'its description is nested deeper than {MAX_DEPTH} levels')
    if version != format_version:
        raise IntegrityError(f'its format version is {str(version)[:80]}, this release of mmgps reads {format_version}')
    return dict(content)


def _nested(content: Any) -> bool:
    """Whether lists and dicts lie within each other deeper than any description that mmgps writes."""
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [part for outer in level for part in (outer.values() if isinstance(outer, dict) else outer)]
        level = [part for part in level if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _check_tensors(tensors: Any) -> None:
    """Make sure that all of ``tensors`` are ordinary and contiguous.

    A tensor in a checkpoint may be a view that repeats a few bytes as often as it likes.

    Raises:
        IntegrityError: Names the first one that is not.
    """
    if not isinstance(tensors, Mapping):
        raise IntegrityError(f'expected tensors by name, found {type(tensors).__name__}')
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise IntegrityError(f'expected tensors by name, found {name!r}: {type(value).__name__}')
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or not value.is_contiguous():
            raise IntegrityError(f'{name!r} is no contiguous tensor')


def write_checked(path: str | os.PathLike[str], key: str, envelope: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and envelope: the file appears complete or not at all.

    Raises:
        OSError: If the file cannot be written, for example to a full disk.
    """
    with atomic_file(path) as partial:
        try:
            save_file(dict(tensors), str(partial), {key: envelope})
        except SafetensorError as error:
            raise OSError(f'{os.fspath(path)!r} was not written: {error}') from error


def read_checked(path: str | os.PathLike[str], key: str, kind: str) -> tuple[str, dict[str, Tensor]]:
    """Read the envelope and tensors of a file, without comparing them.

    Raises:
        FileNotFoundError: If there is no such file.
        PermissionError: If it may not be read.
        IntegrityError: If it is no safetensors file, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no {kind} file at {os.fspath(path)!r}')
    with open(path, 'rb') as opened:  # safetensors says of any file that it cannot open that there is none
        begin = opened.read(4)
    try:
        with safe_open(str(path), framework='pt') as file:
            return (file.metadata() or {}).get(key, ''), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        if begin.startswith(CHECKPOINTS):
            raise IntegrityError(
                f'this is a checkpoint (or another zip), not a {kind}, which is a safetensors file; '
                'tools/delta.py extract makes a delta of a checkpoint'
            ) from error
        raise IntegrityError(str(error)) from error


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f'{name}:{tensors[name].dtype}'.encode())
        digest.update(bits(tensors[name]).numpy().data)
    return digest.hexdigest()
