# Swin-B at 224 px with a linear head on average pooling. mmpretrain has ImageNet-21k weights only after tuning on ImageNet-1k.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='SwinTransformer',
        arch='base',
        img_size=224,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/swin-transformer/convert/'
            'swin_base_patch4_window7_224_22kto1k-f967f799.pth',
            prefix='backbone.')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=1024, loss=dict(type='CrossEntropyLoss')))
