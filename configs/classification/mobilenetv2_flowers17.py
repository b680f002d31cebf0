# GPS with K=1 on 40 images per class.
#   python tools/train.py configs/classification/mobilenetv2_flowers17.py --data-root data/oxford_flowers17
# Weights: the backbone with the names of mmseg, which mmpretrain shares.
_base_ = [
    '../_base_/classification_runtime.py',
    '../_base_/datasets/flowers17_112x112.py',
    '../_base_/models/mobilenetv2_flowers17.py',
    '../_base_/schedules/flowers17_4e.py',
    '../_base_/tuning/gps_supcon.py',
]
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/mobilenetv2_mmseg.pth')))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
