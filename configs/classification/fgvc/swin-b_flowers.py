_base_ = ['../../_base_/models/swin-b_in21k.py', '../../_base_/fgvc/flowers.py']
model = _base_.fitted
