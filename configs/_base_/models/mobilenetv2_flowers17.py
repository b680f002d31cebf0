# MobileNetV2 (Sandler et al., CVPR 2018) with a linear head on average pooling. BN stays in evaluation mode, since the weights may have it folded in.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(type='MobileNetV2', widen_factor=1.0, norm_eval=True),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=17, in_channels=1280, loss=dict(type='CrossEntropyLoss')))
