# SAM ViT-B without prompts: image encoder as backbone, mask decoder as head. Images of any size; 1024 is its own.
# The published file of the weights is fetched if it is not there.
find_unused_parameters = True  # SAM's masks for ambiguous prompts and its estimate of quality get no gradient
model = dict(
    type='EncoderDecoder',
    init_cfg=dict(type='mmgps.SAMPretrained', checkpoint='pretrain/sam_vit_b_01ec64.pth'),
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
    backbone=dict(type='mmgps.SAMImageEncoder', arch='vit_b'),
    decode_head=dict(
        type='mmgps.SAMMaskHead',
        # Cross-entropy of (0, m) is the binary one of SAM's logit m.
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True),
            dict(type='mmgps.ForegroundIoULoss'),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
