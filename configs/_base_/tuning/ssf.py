custom_hooks = [dict(type='mmgps.TuneHook', method=dict(type='mmgps.SSF'))]
