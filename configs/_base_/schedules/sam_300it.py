# The paper's polyp recipe, cut to 300 iterations: Adam at 2e-4, cosine decay to 1e-7.
optim_wrapper = dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='Adam', lr=2e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-7, by_epoch=False, begin=0, end=300, T_max=300)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=300, val_interval=300)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100, max_keep_ckpts=1),
    resume=dict(type='mmgps.ExactResumeHook'),
    overlays=dict(type='mmgps.OverlayHook'),
)
