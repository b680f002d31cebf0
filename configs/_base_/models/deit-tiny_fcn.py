# DeiT-Tiny/16 with a small FCN head on four feature maps (blocks 3, 6, 9, 12). The leaf config sets the weights.
norm_cfg = dict(type='BN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size=(224, 224),
    pad_val=0,
    seg_pad_val=255,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='VisionTransformer',
        img_size=(224, 224),
        patch_size=16,
        embed_dims=192,
        num_layers=12,
        num_heads=3,
        mlp_ratio=4,
        out_indices=(2, 5, 8, 11),
        qkv_bias=True,
        patch_bias=True,
        final_norm=True,
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=[192, 192, 192, 192],
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        channels=96,
        num_convs=2,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=2,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_weight=1.0, avg_non_ignore=True),
            # mmseg's DiceLoss includes the background, which would hide a small polyp.
            dict(type='mmgps.ForegroundDiceLoss', loss_weight=1.0),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
