# Shard the frozen base over the processes, see docs/fsdp.md. List this file after default_runtime.py in `_base_`.
runner_type = 'FlexibleRunner'
strategy = dict(type='mmgps.GPSFSDPStrategy')
