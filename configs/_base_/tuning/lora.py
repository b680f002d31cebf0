custom_hooks = [dict(type='mmgps.TuneHook', method=dict(type='mmgps.LoRA', rank=8))]
