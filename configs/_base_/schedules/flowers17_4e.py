# 4 epochs of 40 iterations (680 images, batch 17) of AdamW: 16 iterations of warm-up, then cosine decay to zero; the last epoch counts.
optim_wrapper = dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.01))
param_scheduler = [
    dict(type='mmgps.WarmUpCosineLR', warm_up=16, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=4)
auto_scale_lr = dict(enable=False, base_batch_size=17)
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=40),
    checkpoint=dict(type='CheckpointHook', by_epoch=True, interval=2, max_keep_ckpts=1),
    resume=dict(type='mmgps.ExactResumeHook'),
)
