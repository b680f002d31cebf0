custom_hooks = [dict(type='mmgps.TuneHook', method=dict(type='mmgps.Adapter', bottleneck=8))]
