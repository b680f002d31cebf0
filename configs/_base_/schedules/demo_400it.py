# 400 iterations of AdamW: linear warm-up, then cosine decay; validation halfway and at the end.
optim_wrapper = dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=40, end=400),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=400, val_interval=200)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=1),
    resume=dict(type='mmgps.ExactResumeHook'),
    overlays=dict(type='mmgps.OverlayHook'),
    scores=dict(type='mmgps.BeforeAfterHook'),
)
log_processor = dict(by_epoch=False)
