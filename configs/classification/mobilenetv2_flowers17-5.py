# Five images per class: 32 epochs of 5 iterations, as many iterations as on all images.
_base_ = ['./mobilenetv2_flowers17.py']
train_dataloader = dict(dataset=dict(ann_file='train5.txt'))
train_cfg = dict(max_epochs=32, val_interval=32)
default_hooks = dict(checkpoint=dict(interval=16))
