# ViT-B/16 at 224 px, pre-trained on ImageNet-21k (Steiner et al., arXiv 2106.10270), with a linear head on its class token.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True),
    backbone=dict(
        type='VisionTransformer',
        arch='b',
        img_size=224,
        patch_size=16,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/vit/pretrain/'
            'vit-base-p16_3rdparty_pt-64xb64_in1k-224_20210928-02284250.pth',  # the zoo calls it "in1k" by mistake
            prefix='backbone.')),
    head=dict(type='LinearClsHead', in_channels=768, loss=dict(type='CrossEntropyLoss')))
