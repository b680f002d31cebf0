"""Tensors and their description in one file, which is read whole and unaltered or not at all.

The file is a safetensors file: no code is executed in reading it. Its metadata hold one envelope: the description as
JSON, and a SHA-256 digest of the description and of names, types and bits of all tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmgps.whole_file import whole_file

from .fingerprint import bits


class SealError(ValueError):
    """What was read is not what was written."""


def seal(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The envelope of ``content``, JSON values with a ``format_version``, and ``tensors``."""
    text = json.dumps(content, sort_keys=True)
    return json.dumps({'content': text, 'sha256': _digest(text, tensors)})


def unseal(envelope: Any, tensors: Any, kind: str, format_version: int) -> dict[str, Any]:
    """The content that was sealed with ``tensors``.

    Args:
        envelope: What :func:`seal` gave.
        tensors: What it was given, by name.
        kind: What it describes, for messages.
        format_version: The one that the caller reads.

    Raises:
        SealError: Says what is wrong.
    """
    try:
        packed = json.loads(envelope)
        text, digest = packed['content'], packed['sha256']
        content: dict[str, Any] | None = json.loads(text) if digest == _digest(text, tensors) else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SealError(f'it holds no description of a {kind}') from error
    if content is None:
        raise SealError('its content does not match its digest; it was altered or damaged')
    if content['format_version'] != format_version:
        raise SealError(
            f'its format version is {content["format_version"]}, this release of mmgps reads {format_version}'
        )
    return content


def write_sealed(path: str | os.PathLike[str], key: str, envelope: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and envelope at once: the file appears whole or not at all.

    Raises:
        OSError: If it cannot be written, to a full disk for example.
    """
    with whole_file(path) as partial:
        try:
            save_file(dict(tensors), str(partial), {key: envelope})
        except SafetensorError as error:
            raise OSError(f'{os.fspath(path)!r} was not written: {error}') from error


def read_sealed(path: str | os.PathLike[str], key: str, kind: str) -> tuple[str, dict[str, Tensor]]:
    """Envelope and tensors of a file, not yet checked against each other.

    Raises:
        FileNotFoundError: If there is no such file.
        SealError: If it is no safetensors file, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no {kind} file at {os.fspath(path)!r}')
    try:
        with safe_open(str(path), framework='pt') as file:
            return (file.metadata() or {}).get(key, ''), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise SealError(str(error)) from error


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f'{name}:{tensors[name].dtype}'.encode())
        digest.update(bits(tensors[name]).numpy().data)
    return digest.hexdigest()
