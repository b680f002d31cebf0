# DeiT-Tiny/16 (Touvron et al., ICML 2021) at 112 px with a linear head on its class token. The leaf config sets the weights.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(type='VisionTransformer', arch='deit-tiny', img_size=112, patch_size=16),
    head=dict(type='LinearClsHead', num_classes=17, in_channels=192, loss=dict(type='CrossEntropyLoss')))
