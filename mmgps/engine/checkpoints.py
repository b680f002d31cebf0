"""Checkpoints read without executing code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

DELTA_SUFFIX = '.safetensors'


def refuse_delta(checkpoint: str, instead: str) -> None:
    """Refuse a delta where a checkpoint is asked for.

    Args:
        checkpoint: The file that was given.
        instead: What to do with the checkpoint that becomes of it.

    Raises:
        ValueError: Says how to make a checkpoint of it.
    """
    if checkpoint.endswith(DELTA_SUFFIX):
        raise ValueError(
            f'{checkpoint} is a delta, without its base and the state of the optimizer; write base and delta as a '
            f'checkpoint, python tools/delta.py apply CONFIG {checkpoint} whole.pth, and {instead}'
        )


def load_plain(checkpoint: str | os.PathLike[str]) -> Mapping[str, Any]:
    """What the file holds, on the CPU.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged or holds objects, as those of mmengine do without
            :class:`mmgps.engine.ExactResumeHook`.
    """
    try:
        return torch.load(checkpoint, map_location='cpu', weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch has a different one for every way in which a file can be wrong
        raise ValueError(
            f'{checkpoint} is damaged or holds more than tensors and plain values: {str(error).splitlines()[0]} '
            "Runs with default_hooks.resume=dict(type='mmgps.ExactResumeHook') write checkpoints that load safely."
        ) from error
