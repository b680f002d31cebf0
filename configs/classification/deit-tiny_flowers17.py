# GPS with K=1 on 40 images per class.
#   python tools/train.py configs/classification/deit-tiny_flowers17.py --data-root data/oxford_flowers17
# Weights: tools/convert_vit.py converts the file for mmseg; docs/classification.md has the commands.
_base_ = [
    '../_base_/classification_runtime.py',
    '../_base_/datasets/flowers17_112x112.py',
    '../_base_/models/deit-tiny_flowers17.py',
    '../_base_/schedules/flowers17_4e.py',
    '../_base_/tuning/gps_supcon.py',
]
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/deit_tiny_mmpretrain.pth')))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
