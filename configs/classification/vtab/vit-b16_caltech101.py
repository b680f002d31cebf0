_base_ = ['../../_base_/models/vit-b16_in21k.py', '../../_base_/vtab/caltech101.py']
model = _base_.fitted
