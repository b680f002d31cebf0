# 96 px frames of mmgps.SyntheticShapesDataset, which the workers draw; train and val use different worlds.
train_pipeline = [
    dict(type='mmgps.RenderFrame'),
    dict(type='PackSegInputs'),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='mmgps.SyntheticShapesDataset', length=100_000, size=96, seed=1, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmgps.SyntheticShapesDataset', length=256, size=96, seed=2, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
