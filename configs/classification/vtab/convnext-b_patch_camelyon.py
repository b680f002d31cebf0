_base_ = ['../../_base_/models/convnext-b_in21k.py', '../../_base_/vtab/patch_camelyon.py']
model = _base_.fitted
