# One connection per neuron of the backbone, chosen on all training images.
custom_hooks = [dict(type='mmgps.GPSHook', k=1)]
