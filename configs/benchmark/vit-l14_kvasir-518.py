_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/kvasir_seg_224x224.py',
    '../_base_/models/deit-tiny_fcn.py',
    '../_base_/schedules/kvasir_8e.py',
    '../_base_/tuning/gps.py',
]
# ViT-L/14 with the shape of DINOv2 at 518 px and random weights, to measure the cost of the methods; not a recipe.
#   python tools/benchmark.py configs/benchmark/vit-l14_kvasir-518.py --data-root data/kvasir_seg --device cuda
crop_size = (518, 518)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=crop_size[::-1], keep_ratio=False),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='l',
        img_size=518,
        patch_size=14,
        layer_scale_init_value=1e-5,
        out_type='featmap',
        out_indices=(5, 11, 17, 23)),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024]))
