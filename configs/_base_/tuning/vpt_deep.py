custom_hooks = [dict(type='mmgps.TuneHook', method=dict(type='mmgps.VPTDeep', tokens=10))]
