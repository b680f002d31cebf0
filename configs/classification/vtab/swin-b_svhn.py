_base_ = ['../../_base_/models/swin-b_in21k.py', '../../_base_/vtab/svhn.py']
model = _base_.fitted
