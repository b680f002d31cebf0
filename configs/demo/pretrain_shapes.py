# Train the base weights of the demo from scratch on drawn shapes:
#   python tools/train.py configs/demo/pretrain_shapes.py --work-dir work_dirs/pretrain_shapes
#   python tools/extract_backbone.py work_dirs/pretrain_shapes/iter_4000.pth configs/demo/vit-mini_shapes.pth --half
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic_shapes.py',
    '../_base_/models/vit-mini_fcn.py',
]
iterations = 4000
# 96 px make 64 tokens and a third of the demo's cost; mmseg resizes the position embedding to 144 px on loading.
size = (96, 96)
model = dict(
    data_preprocessor=dict(size=size, test_cfg=dict(size=size)),
    backbone=dict(img_size=size),
    decode_head=dict(num_classes=8),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    # Position embeddings start at 0.02, patch embeddings at 1; a higher rate lets the former catch up.
    paramwise_cfg=dict(custom_keys=dict(pos_embed=dict(lr_mult=10.0, decay_mult=0.0))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=200, end=iterations),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=1000)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=250, max_keep_ckpts=1),
    resume=dict(type='mmgps.ExactResumeHook'),
)
log_processor = dict(by_epoch=False)
