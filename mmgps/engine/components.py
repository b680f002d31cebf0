"""Registers the torch-only classes, so that configs can name them."""

from mmgps import registry, selection, sparse, tuning

METHOD_NAMES = {
    'gps': 'GPS',
    'full': 'FullTuning',
    'linear': 'LinearProbe',
    'bias': 'BiasTuning',
}
"""Short names for the command line."""

for _name in METHOD_NAMES.values():
    registry.METHODS.register_module(module=getattr(tuning, _name))
for _name in ('GradientScore', 'MagnitudeScore', 'RandomScore'):
    registry.SCORES.register_module(module=getattr(selection, _name))
for _name in ('PerNeuron', 'PerLayer', 'NetworkWide'):
    registry.CHOICES.register_module(module=getattr(selection, _name))
for _name in ('CompactTraining', 'MaskedTraining'):
    registry.SPARSE.register_module(module=getattr(sparse, _name))
