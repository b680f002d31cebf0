_base_ = ['../../_base_/models/vit-b16_in21k.py', '../../_base_/fgvc/cub.py']
model = _base_.fitted
