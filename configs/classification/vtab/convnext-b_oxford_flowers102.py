_base_ = ['../../_base_/models/convnext-b_in21k.py', '../../_base_/vtab/oxford_flowers102.py']
model = _base_.fitted
