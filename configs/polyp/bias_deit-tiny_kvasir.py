_base_ = ['./base_deit-tiny_kvasir.py', '../_base_/tuning/bias.py']
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
