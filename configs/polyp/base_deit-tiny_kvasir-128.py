# base_deit-tiny_kvasir.py at 128 px, to compare all methods within two hours on two CPU cores. See docs/results.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/kvasir_seg_128x128.py',
    '../_base_/models/deit-tiny_fcn.py',
    '../_base_/schedules/kvasir_8e.py',
]
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(img_size=(128, 128), init_cfg=dict(type='Pretrained', checkpoint='pretrain/deit_tiny_mmseg.pth')))
