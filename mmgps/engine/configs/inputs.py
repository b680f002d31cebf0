"""What a config needs that no checkout holds: images and weights.

A config names them, so that ``tools/train.py`` can fetch what is missing before anything is built::

    inputs = dict(
        images=dict(type='mmgps.PolypImages', name='kvasir-seg'),
        weights=dict(type='mmgps.SAMWeights'))

Where they belong stands in the config already, in ``data_root`` and ``init_cfg``; what is there is left as it is.
"""

from __future__ import annotations

from typing import Protocol

from mmengine.config import Config

from mmgps.registry import INPUTS

DEMO = 'configs/gps_polyp_demo.py'


class InputMissingError(RuntimeError):
    """One input is missing and could not be fetched: what, why, from where, and where to put it."""


class MissingInputsError(RuntimeError):
    """A config cannot run: one paragraph on all that is missing."""


class Input(Protocol):
    """Something that a config needs."""

    def provide(self, cfg: Config) -> None:
        """Fetch it to where ``cfg`` reads it from, unless it is there.

        Raises:
            InputMissingError: If that failed.
        """
        ...


def provide_inputs(cfg: Config) -> None:
    """Fetch what the ``inputs`` of ``cfg`` name, where it is missing. All are tried before an error is raised.

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
