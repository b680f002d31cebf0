# A ViT of 1.6 M parameters for 144 px frames (12 px per token, 144 tokens) with an FCN head on all four feature maps.
taps = (1, 3, 5, 7)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(144, 144),
        test_cfg=dict(size=(144, 144)),
    ),
    backbone=dict(
        type='VisionTransformer',
        img_size=(144, 144),
        patch_size=12,
        patch_bias=True,
        embed_dims=128,
        num_layers=8,
        num_heads=4,
        out_indices=taps,
        final_norm=True,
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=[128] * len(taps),
        in_index=list(range(len(taps))),
        input_transform='resize_concat',
        channels=64,
        num_convs=1,
        kernel_size=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=2,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=[
            dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            # Ignore index 0: a sum with the background would hide a small foreground.
            dict(type='DiceLoss', use_sigmoid=False, ignore_index=0, loss_weight=1.0),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
