# ConvNeXt-B at 224 px, pre-trained on ImageNet-21k, with a linear head on average pooling.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='ConvNeXt',
        arch='base',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/'
            'convnext-base_3rdparty_in21k_20220124-13b83eec.pth',
            prefix='backbone.')),
    head=dict(type='LinearClsHead', in_channels=1024, loss=dict(type='CrossEntropyLoss')))
