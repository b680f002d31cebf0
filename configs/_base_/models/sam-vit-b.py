# SAM ViT-B without prompts: image encoder as backbone, mask decoder as head. Takes images of any size; SAM uses 1024.
# Downloads the published weights if they are missing.
find_unused_parameters = True  # masks for ambiguous prompts and the quality estimate of SAM get no gradient
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
        # The cross-entropy of (0, m) equals the binary cross-entropy of SAM's logit m.
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True),
            dict(type='mmgps.ForegroundIoULoss'),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
