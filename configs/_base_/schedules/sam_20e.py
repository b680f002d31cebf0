# The paper's polyp recipe: 20 epochs of Adam at 2e-4, cosine decay to 1e-7 by epoch; the last epoch counts.
optim_wrapper = dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='Adam', lr=2e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-7, by_epoch=True, begin=0, end=20, T_max=20)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=20)
auto_scale_lr = dict(enable=False, base_batch_size=1)
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', by_epoch=True, interval=1, max_keep_ckpts=1),
    resume=dict(type='mmgps.ExactResumeHook'),
    overlays=dict(type='mmgps.OverlayHook'),
)
