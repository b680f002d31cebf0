# GPS, K=1: DeiT-Tiny on all of Kvasir-SEG, 224 px, official split.
#   python tools/train.py configs/polyp/gps_deit-tiny_kvasir.py --data-root data/kvasir_seg
# Weights: DeiT-Tiny with the names of mmseg's VisionTransformer; README has the command that converts the published file.
_base_ = ['./base_deit-tiny_kvasir.py', '../_base_/tuning/gps.py']
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
