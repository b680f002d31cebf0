"""Inputs of a config that are not in the repository: images and weights.

A config names them, so that ``tools/train.py`` can fetch what is missing before anything is built::

    inputs = dict(
        images=dict(type='mmgps.PolypImages', name='kvasir-seg'),
        weights=dict(type='mmgps.SAMWeights'))

The config already names their places, in ``data_root`` and ``init_cfg``; existing files are left alone.
"""

from __future__ import annotations

from typing import Protocol

from mmengine.config import Config

from mmgps.registry import INPUTS

DEMO = 'configs/gps_polyp_demo.py'


class InputMissingError(RuntimeError):
    """An input is missing and could not be fetched; the message has the reason, its source, and its place."""


class MissingInputsError(RuntimeError):
    """Inputs of a config are missing; the message covers all of them in one paragraph."""


class Input(Protocol):
    """File or folder that a config needs."""

    def provide(self, cfg: Config) -> None:
        """Fetch the input to the place that ``cfg`` reads, unless it exists.

        Raises:
            InputMissingError: If it could not be fetched.
        """
        ...


def provide_inputs(cfg: Config) -> None:
    """Fetch the missing ``inputs`` of ``cfg``. All are tried before an error is raised.

    Raises:
        MissingInputsError: If some could not be fetched.
    """
    failures = []
    for options in (cfg.get('inputs') or {}).values():
        wanted: Input = INPUTS.build({'_scope_': 'mmgps', **options})
        try:
            wanted.provide(cfg)
        except InputMissingError as error:
            failures.append(str(error).rstrip('.'))
    if failures:
        count = {1: 'an input is', 2: 'two inputs are'}.get(len(failures), f'{len(failures)} inputs are')
        raise MissingInputsError(
            f'{count} missing. {". ".join(failures)}. To see the method at work without any of this, offline: '
            f'python tools/train.py {DEMO}'
        )
