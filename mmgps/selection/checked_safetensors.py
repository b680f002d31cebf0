"""Safetensors files with a description and a digest, so that damaged and altered files are refused.

Reading executes no code. The metadata contain one envelope: the description as JSON, and a SHA-256 digest of the
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
"""First bytes of files that ``torch.save`` writes, today and before torch 1.6."""


class IntegrityError(ValueError):
    """A file or checkpoint differs from what was written."""


def add_digest(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Pack ``content`` (JSON values with a ``format_version``) and its digest into an envelope.

    The digest covers the names, types and bits of ``tensors`` too. Their shapes belong in ``content``.
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
        IntegrityError: If the two do not match, or the content is no description of this version.
    """
    _check_tensors(tensors)
    try:
        packed = json.loads(envelope)
        text, digest = packed['content'], packed['sha256']
        content = json.loads(text)
        version = content['format_version']
        whole = digest == _digest(text, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # too deep for json: RuntimeError
        raise IntegrityError(f'it contains no description of a {kind}') from error
    if not whole:
        raise IntegrityError('its content does not match its digest, so it was altered or damaged')
    if _nested(content):
        raise IntegrityError(f'its description is nested deeper than {MAX_DEPTH} levels')
    if version != format_version:
        raise IntegrityError(
            f'its format version is {str(version)[:80]}, but this release of mmgps reads {format_version}'
        )
    return dict(content)


def _nested(content: Any) -> bool:
    """True if lists and dicts are nested deeper than ``MAX_DEPTH``, which no description by mmgps reaches."""
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [part for outer in level for part in (outer.values() if isinstance(outer, dict) else outer)]
        level = [part for part in level if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _check_tensors(tensors: Any) -> None:
    """Raise an ``IntegrityError`` for the first of ``tensors`` that is not a dense contiguous tensor.

    A tensor of a checkpoint may be a view that repeats a few bytes any number of times.
    """
    if not isinstance(tensors, Mapping):
        raise IntegrityError(f'expected tensors by name, found {type(tensors).__name__}')
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise IntegrityError(f'expected tensors by name, found {name!r}: {type(value).__name__}')
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or not value.is_contiguous():
            raise IntegrityError(f'expected dense contiguous tensors, but {name!r} is not contiguous or not dense')


def write_checked(path: str | os.PathLike[str], key: str, envelope: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and envelope; the file appears complete or not at all.

    Raises:
        OSError: If the file cannot be written, for example because the disk is full.
    """
    with atomic_file(path) as partial:
        try:
            save_file(dict(tensors), str(partial), {key: envelope})
        except SafetensorError as error:
            raise OSError(f'{os.fspath(path)!r} was not written: {error}') from error


def read_checked(path: str | os.PathLike[str], key: str, kind: str) -> tuple[str, dict[str, Tensor]]:
    """Read the envelope and tensors of a file without comparing them.

    Raises:
        FileNotFoundError: If the file does not exist.
        PermissionError: If the user may not read it.
        IntegrityError: If it is no safetensors file, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no {kind} file at {os.fspath(path)!r}')
    with open(path, 'rb') as opened:  # raises a PermissionError, where safetensors would report a missing file
        begin = opened.read(4)
    try:
        with safe_open(str(path), framework='pt') as file:
            return (file.metadata() or {}).get(key, ''), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        if begin.startswith(CHECKPOINTS):
            raise IntegrityError(
                f'this is a checkpoint (or another zip file), but a {kind} is a safetensors file; '
                'tools/delta.py extract makes a delta from a checkpoint'
            ) from error
        raise IntegrityError(str(error)) from error


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f'{name}:{tensors[name].dtype}'.encode())
        digest.update(bits(tensors[name]).numpy().data)
    return digest.hexdigest()
