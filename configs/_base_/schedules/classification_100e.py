# 100 epochs of Adam without weight decay: 10 of warm-up from 1e-7, then cosine decay to 1e-8; the last epoch counts.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=100)
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', by_epoch=True, interval=10, max_keep_ckpts=1),
    resume=dict(type='mmgps.ExactResumeHook'),
)
