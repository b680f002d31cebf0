# A small SAM with random weights on Kvasir-SEG at 128 px; settings that all methods share.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/kvasir_seg_128x128.py',
    '../_base_/models/sam-mini.py',
    '../_base_/schedules/sam_300it.py',
]
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
inputs = dict(images=dict(type='mmgps.PolypImages', name='kvasir-seg'))
