# Five sets of fine-grained classification: a table of recipes, and their conversion to configs.
# Source: train_scripts/vit/fgvc of https://github.com/FightingFighting/GPS, and the paper's appendix.
_base_ = ['./classification_runtime.py', './schedules/classification_100e.py']

#        folder             data set              trained on classes lr   batch  K drop-path EMA
__sets = dict(
    cub=('cub',                'CUB',                'train',    200, 3e-3, 32,  2, 0.0, 0.9998),
    nabirds=('nabirds',        'mmgps.NABirds',      'train',    555, 1e-4, 32, 20, 0.1, 0.9998),
    flowers=('oxford_flowers', 'Flowers102',         'trainval', 102, 1e-3, 32,  1, 0.1, 0.99),
    dogs=('stanford_dogs',     'mmgps.StanfordDogs', 'train',    120, 1e-4, 64,  1, 0.0, 0.9998),
    cars=('stanford_cars',     'StanfordCars',       'train',    196, 5e-4, 32, 15, 0.0, 0.9998),
)
__epochs, __warmup, __size = 100, 10, 224

__crop = dict(type='RandomResizedCrop', scale=__size, backend='pillow', interpolation='bicubic')
__flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
train_pipeline = [dict(type='LoadImageFromFile'), __crop, __flip, dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=248, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=__size),
    dict(type='PackInputs'),
]
view_pipeline = [
    dict(type='LoadImageFromFile'),
    __crop,
    __flip,
    dict(
        type='RandomApply',
        prob=0.8,
        transforms=[dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)]),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True),
    dict(type='PackInputs'),
]


def __task(folder, kind, trained, classes, lr, batch, k, drop_path, ema):
    def loader(split, pipeline):
        data = dict(type=kind, data_root=f'data/{folder}', split=split, pipeline=pipeline)
        sampler = dict(type='DefaultSampler', shuffle=split == trained)
        options = dict(batch_size=batch, num_workers=4, persistent_workers=True, collate_fn=dict(type='default_collate'))
        return dict(**options, sampler=sampler, dataset=data)

    warm_up = dict(type='LinearLR', start_factor=1e-7 / lr, begin=0, end=__warmup)
    cosine = dict(type='CosineAnnealingLR', T_max=__epochs - __warmup, eta_min=1e-8, begin=__warmup, end=__epochs)
    return dict(
        train=loader(trained, train_pipeline),
        test=loader('test', test_pipeline),
        model=dict(
            data_preprocessor=dict(num_classes=classes),
            backbone=dict(drop_path_rate=drop_path),
            head=dict(num_classes=classes, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
            train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])),
        optim=dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='Adam', lr=lr, weight_decay=0.0)),
        schedule=[dict(**part, by_epoch=True, convert_to_iter_based=True) for part in (warm_up, cosine)],
        hooks=[
            dict(type='mmgps.GPSHook', k=k, loss=dict(type='mmgps.SupConLoss', pipeline=view_pipeline)),
            dict(type='EMAHook', momentum=round(1 - ema, 6)),
        ])


tasks = {name: __task(*row) for name, row in __sets.items()}
