# SAM with an image encoder of 1.1 M parameters for 128 px and random weights, for trials on a CPU.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=16,
        test_cfg=dict(size_divisor=16),
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='mmgps.SAMImageEncoder',
        arch=dict(embed_dims=96, depth=4, num_heads=3, global_blocks=(1, 3)),
        img_size=128,
        patch_size=8,
        window_size=7,
    ),
    decode_head=dict(type='mmgps.SAMMaskHead'),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
