# 8 epochs of 110 iterations (880 images, batch 8) of AdamW: 50 iterations of warm-up, then cosine decay to zero; the last epoch counts.
# Adapts to other sets, numbers of GPUs and max_epochs: warm-up takes at most a tenth of the run, cosine decay the rest.
optim_wrapper = dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.01))
param_scheduler = [
    dict(type='mmgps.WarmUpCosineLR', warm_up=50, start_factor=0.02, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=8, val_interval=8)
auto_scale_lr = dict(enable=False, base_batch_size=8)
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=55),
    checkpoint=dict(type='CheckpointHook', by_epoch=True, interval=1, max_keep_ckpts=1),
    resume=dict(type='mmgps.ExactResumeHook'),
    overlays=dict(type='mmgps.OverlayHook'),
)
