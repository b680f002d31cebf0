# The demo with deterministic algorithms. Torch has none for the class loss of maps on CUDA, whose kernel does not vary
# where nothing is reduced; with warn_only it is let through.
_base_ = '../../configs/gps_polyp_demo.py'
custom_imports = dict(imports=['determinism'])
custom_hooks = [
    dict(type='Deterministic', priority='VERY_HIGH'),
    dict(type='mmgps.GPSHook', k=1),
]
env_cfg = dict(cudnn_benchmark=False)
