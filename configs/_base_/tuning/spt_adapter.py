custom_hooks = [dict(type='mmgps.TuneHook', method=dict(type='mmgps.SPTAdapter', budget=0.005, rank=8))]
