# One connection per neuron, chosen by the contrastive loss between pixels (polyp or not) of two views of the images.
_base_ = './base_deit-tiny_kvasir-128.py'
custom_hooks = [
    dict(type='mmgps.GPSHook', loss=dict(type='mmgps.SupConLoss', embedding=dict(type='mmgps.PixelEmbedding'))),
]
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
