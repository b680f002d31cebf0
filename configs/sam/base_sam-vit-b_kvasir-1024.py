# The paper's polyp setting without a method: SAM ViT-B on Kvasir-SEG at 1024 px, without prompts.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/kvasir_seg_1024x1024.py',
    '../_base_/models/sam-vit-b.py',
    '../_base_/schedules/sam_20e.py',
]
# tools/train.py downloads these if they are missing.
inputs = dict(
    images=dict(type='mmgps.PolypImages', name='kvasir-seg'),
    weights=dict(type='mmgps.SAMWeights'),
)
