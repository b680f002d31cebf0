# The demo with deterministic algorithms, for killed_run.py. On CUDA, torch has no deterministic class loss of maps; the
# hook only warns about it, since its kernel does not vary without a reduction.
_base_ = '../../configs/gps_polyp_demo.py'
custom_hooks = [
    dict(type='Deterministic', priority='VERY_HIGH'),
    dict(type='mmgps.GPSHook', k=1),
]
env_cfg = dict(cudnn_benchmark=False)
