custom_hooks = [dict(type='mmgps.TuneHook', method=dict(type='mmgps.SPTLoRA', budget=0.005, rank=8))]
