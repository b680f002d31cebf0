# The built-in demo: fine-tune a small ViT, pre-trained on drawn shapes, on drawn polyps. Needs two CPU cores, no network.
#   python tools/train.py configs/gps_polyp_demo.py
_base_ = [
    './_base_/default_runtime.py',
    './_base_/datasets/synthetic_polyp.py',
    './_base_/models/vit-mini_fcn.py',
    './_base_/schedules/demo_400it.py',
    './_base_/tuning/gps.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='{{ fileDirname }}/demo/vit-mini_shapes.pth'),
    ),
)
