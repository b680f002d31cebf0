# Oxford-17 Flowers at 112 px, a size for CPUs: 40 training and 20 test images per class; val.txt lists 20 more for choices.
# Prepare with: python tools/prepare_fgvc.py oxford-flowers17 --source FOLDER --out data/oxford_flowers17
data_root = 'data/oxford_flowers17'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=112, crop_ratio_range=(0.35, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=124, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=112),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=17,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset', data_root=data_root, ann_file='train.txt', data_prefix='', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=34,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset', data_root=data_root, ann_file='test.txt', data_prefix='', pipeline=test_pipeline))
test_dataloader = val_dataloader
