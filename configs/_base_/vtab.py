# The 19 tasks of VTAB-1k, trained on all 1000 images: a table of recipes, and their conversion to configs.
# Source: train_scripts/vit/vtab of https://github.com/FightingFighting/GPS, commit c52ea8a.
_base_ = ['./classification_runtime.py', './schedules/classification_100e.py']

# Generated from mmgps/vtab_tasks.py by tools/dev/vtab_configs.py, down to the end of the table.
__tasks = dict(
    #                    classes,   lr, batch, K, drop-path
    cifar=(                  100,   0.01,   32, 1,      0.0),
    caltech101=(             102,  0.002,   16, 1,      0.0),
    dtd=(                     47,  0.002,   16, 1,      0.0),
    oxford_flowers102=(      102,  0.002,   16, 1,      0.0),
    oxford_iiit_pet=(         37,  0.003,   32, 1,      0.0),
    svhn=(                    10,  0.005,   32, 1,      0.0),
    sun397=(                 397, 0.0025,   16, 1,      0.0),
    patch_camelyon=(           2,  0.004,   32, 2,      0.0),
    eurosat=(                 10,  0.002,   16, 1,      0.0),
    resisc45=(                45, 0.0015,   16, 1,      0.1),
    diabetic_retinopathy=(     5,  0.002,   32, 1,      0.2),
    clevr_count=(              8, 0.0003,   16, 1,      0.1),
    clevr_dist=(               6,  0.002,   16, 1,      0.1),
    dmlab=(                    6, 0.0015,   16, 1,      0.1),
    kitti=(                    4,  0.001,   16, 1,      0.0),
    dsprites_loc=(            16,  0.007,   32, 1,      0.0),
    dsprites_ori=(            16, 0.0005,   16, 1,      0.2),
    smallnorb_azi=(           18,  0.003,   32, 1,      0.1),
    smallnorb_ele=(            9, 0.0003,   32, 1,      0.2),
)
__epochs, __warmup, __size = 100, 10, 224

# Training uses no augmentation. The contrastive selection does, because its two views would be equal otherwise.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(__size, __size), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
test_pipeline = train_pipeline
view_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=__size, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomApply',
        prob=0.8,
        transforms=[dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)]),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True),
    dict(type='PackInputs'),
]


def __task(name, classes, lr, batch, k, drop_path):
    def loader(split):
        data = dict(type='mmgps.VTAB', data_root='data/vtab-1k', task=name, split=split, pipeline=train_pipeline)
        sampler = dict(type='DefaultSampler', shuffle=split != 'test')
        options = dict(batch_size=batch, num_workers=4, persistent_workers=True, collate_fn=dict(type='default_collate'))
        return dict(**options, sampler=sampler, dataset=data)

    warm_up = dict(type='LinearLR', start_factor=1e-7 / lr, begin=0, end=__warmup)
    cosine = dict(type='CosineAnnealingLR', T_max=__epochs - __warmup, eta_min=1e-8, begin=__warmup, end=__epochs)
    return dict(
        train=loader('train800val200'),
        test=loader('test'),
        model=dict(backbone=dict(drop_path_rate=drop_path), head=dict(num_classes=classes)),
        optim=dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='Adam', lr=lr, weight_decay=0.0)),
        schedule=[dict(**part, by_epoch=True, convert_to_iter_based=True) for part in (warm_up, cosine)],
        hooks=[dict(type='mmgps.GPSHook', k=k, loss=dict(type='mmgps.SupConLoss', pipeline=view_pipeline))])


tasks = {name: __task(name, *row) for name, row in __tasks.items()}
