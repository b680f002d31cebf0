"""Register the torch-only classes so that configs can name them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmgps import registry, selection, sparse, tuning
from mmgps.tuning import TuningMethod
from mmgps.utils.text import nearest

METHOD_NAMES: dict[str, dict[str, Any]] = {
    **{name: dict(type=f'mmgps.{kind.__name__}') for name, kind in tuning.METHODS.items()},
    'gps-magnitude': dict(type='mmgps.GPS', score=dict(type='mmgps.MagnitudeScore')),
    'gps-random': dict(type='mmgps.GPS', score=dict(type='mmgps.RandomScore')),
    'gps-random5': dict(type='mmgps.GPS', k=5, score=dict(type='mmgps.RandomScore')),
    'gps-per-layer': dict(type='mmgps.GPS', choice=dict(type='mmgps.PerLayer')),
    'gps-taylor': dict(type='mmgps.GPS', score=dict(type='mmgps.TaylorScore')),
    'gps-squared': dict(type='mmgps.GPS', score=dict(type='mmgps.SquaredGradientScore')),
    'gps-snr': dict(type='mmgps.GPS', score=dict(type='mmgps.SignalToNoiseScore')),
    'gps-shared': dict(type='mmgps.GPS', choice=dict(type='mmgps.SharedColumns')),
    'gps-network-wide': dict(type='mmgps.GPS', choice=dict(type='mmgps.NetworkWide')),
    'gps-no-bias': dict(type='mmgps.GPS', full_roles=()),
}
"""Methods of the command line: short names, and the config of each."""

COMPONENTS = {'score': registry.SCORES, 'choice': registry.CHOICES}

for _name in sorted({entry['type'].removeprefix('mmgps.') for entry in METHOD_NAMES.values()}):
    registry.METHODS.register_module(module=getattr(tuning, _name))
for _name in (
    'GradientScore',
    'MagnitudeScore',
    'RandomScore',
    'SignalToNoiseScore',
    'SquaredGradientScore',
    'TaylorScore',
):
    registry.SCORES.register_module(module=getattr(selection, _name))
for _name in ('PerNeuron', 'PerLayer', 'NetworkWide', 'SharedColumns'):
    registry.CHOICES.register_module(module=getattr(selection, _name))
for _name in ('CompactTraining', 'MaskedTraining'):
    registry.SPARSE.register_module(module=getattr(sparse, _name))
for _name in ('FusedAttention', 'Recomputation'):
    registry.LEAN.register_module(module=getattr(sparse, _name))


def check_method_name(name: str) -> None:
    """Check that ``name`` is the short name of a method.

    Raises:
        ValueError: Names the nearest.
    """
    if name not in METHOD_NAMES:
        known = ', '.join(METHOD_NAMES)
        raise ValueError(f'unknown method {name!r}, expected one of {known}; nearest: {nearest(name, METHOD_NAMES, 1)}')


def build_method(cfg: Mapping[str, Any]) -> TuningMethod:
    """Build a method with its score and choice from a config."""
    options = copy.deepcopy(dict(cfg))
    for key, components in COMPONENTS.items():
        if isinstance(options.get(key), Mapping):
            options[key] = components.build({'_scope_': 'mmgps', **options[key]})
    method: TuningMethod = registry.METHODS.build({'_scope_': 'mmgps', **options})
    return method
