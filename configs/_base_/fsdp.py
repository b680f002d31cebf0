# The frozen base is spread over the processes, docs/fsdp.md. Put it behind default_runtime.py in `_base_`.
runner_type = 'FlexibleRunner'
strategy = dict(type='mmgps.GPSFSDPStrategy')
