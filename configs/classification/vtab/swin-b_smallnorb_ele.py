_base_ = ['../../_base_/models/swin-b_in21k.py', '../../_base_/vtab/smallnorb_ele.py']
model = _base_.fitted
