_base_ = ['./base_sam-mini_kvasir-128.py']
custom_hooks = [dict(type='mmgps.GPSHook', k=1, num_batches=25)]
