# Settings that all methods share; each leaf config adds its method and its learning rate for the backbone.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/kvasir_seg_224x224.py',
    '../_base_/models/deit-tiny_fcn.py',
    '../_base_/schedules/kvasir_8e.py',
]
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/deit_tiny_mmseg.pth')))
