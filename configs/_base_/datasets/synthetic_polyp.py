# 144 px frames of mmgps.SyntheticPolypDataset, which draws them without clinical data; train and val use different worlds.
train_pipeline = [
    dict(type='mmgps.RenderFrame'),
    # each of the two flips with probability 0.5, independently
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='mmgps.RenderFrame'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='mmgps.RenderFrame'),
    dict(
        type='TestTimeAug',
        transforms=[
            # the plain view comes first, since its truth is scored
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='vertical'),
            ],
            [dict(type='PackSegInputs')],
        ],
    ),
]
tta_model = dict(type='mmgps.SegTTAModel')
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='mmgps.SyntheticPolypDataset', length=800, size=144, seed=0, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmgps.SyntheticPolypDataset', length=120, size=144, seed=1, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='mmgps.PolypMetric', structure=False),
    dict(type='IoUMetric', iou_metrics=['mDice', 'mIoU']),
]
test_evaluator = val_evaluator
