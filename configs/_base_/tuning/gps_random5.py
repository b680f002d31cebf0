# Five connections per neuron of the backbone, chosen at random. See docs/results/selection_deit-tiny_128.md.
custom_hooks = [dict(type='mmgps.GPSHook', k=5, score=dict(type='mmgps.RandomScore'))]
